"""Text and JSON files that are whole or absent, and digests that tell settings apart."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmsw.whole_file import write_whole

_BLOCK = 1 << 20


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; what is not finite is an error."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
    """What a JSON file holds; None if there is none."""
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else None


def digest(content: Any) -> str:
    """Digest of anything that JSON can hold; other values count as their text."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Digest of the bytes of a file."""
    state = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()[:16]


def source_digest(paths: Iterable[Path]) -> str:
    """Digest of what Python files do: comments, docstrings and layout do not count.

    Args:
        paths: Files, or folders of which all ``.py`` files count.
    """
    files = []
    for path in paths:
        files += sorted(path.rglob('*.py')) if path.is_dir() else [path]
    trees = []
    for path in files:
        tree = ast.parse(path.read_text(encoding='utf-8'))
        for node in ast.walk(tree):
            if isinstance(
                node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            ) and ast.get_docstring(node, clean=False):
                node.body = node.body[1:]
        trees.append((path.name, ast.dump(tree)))
    return digest(trees)
