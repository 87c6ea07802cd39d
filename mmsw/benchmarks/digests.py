"""Digests of what decides a result: settings, configs, data, code and packages."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

import mmsw
from mmsw.apis.data import data_parts, iter_datasets

_BLOCK = 1 << 20
_WHOLE_FILE = 1 << 26  # bytes: of larger data files only the size counts
_PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmsegmentation', 'mmdet')
_FORKS = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'onedl-mmdetection')
_ROOT = Path(mmsw.__file__).parent


def digest(content: Any) -> str:
    """Digest of anything that JSON can hold; other values count as their text."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tensor_digest(tensors: Iterable[Tensor]) -> str:
    """Digest of the bytes of tensors."""
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


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
    return digest([(path.name, _what_it_does(path.read_text(encoding='utf-8'))) for path in files])


@cache  # every run of a plan asks for the same files
def _what_it_does(source: str) -> str:
    """The syntax tree of Python source, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def network_digest() -> str:
    """Digest of the code that makes a network and fills it."""
    folders = [_ROOT / name for name in ('checkpoint', 'models', 'sparsity')]
    return source_digest([*folders, *sorted((_ROOT / 'ops').glob('*.py'))])


def training_conditions(own: Iterable[Path]) -> dict[str, Any]:
    """Settings that every training has: code that decides how it learns, packages, device.

    Args:
        own: Files and folders of code that count for one benchmark alone.
    """
    shared = [Path(__file__).with_name(name) for name in ('hook.py', 'going_on.py', 'worker.py')]
    source = source_digest([_ROOT / 'engine', _ROOT / 'apis/schedule.py', *shared, *own])
    return {
        'source': digest([network_digest(), source]),
        'versions': package_versions(),
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
    }


def package_versions() -> dict[str, str]:
    """Versions of what a training depends on, as installed."""
    found = {'mmsw': mmsw.__version__}
    for name in (*_PACKAGES, *_FORKS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def config_digest(cfg: Config, data: Path, without: Iterable[str] = ()) -> str:
    """Digest of a config; where its data lie does not count.

    Args:
        cfg: The config.
        data: Folder of its data.
        without: More keys that do not count.
    """
    content = cfg.to_dict()
    for key in ('work_dir', *without):
        content.pop(key, None)
    text = json.dumps(content, sort_keys=True, default=str)
    for place in (str(cfg.get('data_root') or data), os.fspath(data)):
        text = text.replace(json.dumps(place)[1:-1], '<data>')
    return digest(text)


def data_digest(cfg: Config, made: Path | None = None) -> str:
    """Digest of the data: annotation files, and the names of the images.

    Args:
        cfg: A config with its data in place. Of a data set that names neither files nor folders,
            the whole ``data_root`` counts.
        made: Folder of the demonstration's data, if it is for them: how they were made counts too.
    """
    seen: list[Any] = []
    for loader in ('train_dataloader', 'val_dataloader'):
        for dataset in iter_datasets(cfg[loader].dataset):
            root = Path(dataset.get('data_root') or '')
            for part in data_parts(dataset) or ([''] if root.parts else []):
                seen.append((part, content_digest(root / part)))
    if made is not None:
        seen.append(content_digest(made / 'demo_data.json'))
    return digest(seen)


def content_digest(path: Path) -> str | int | None:
    """Digest of a file, or of all names below a folder; of large files the size; None if absent."""
    if path.is_dir():
        names = sorted(str(found.relative_to(path)) for found in path.rglob('*'))
        return digest(names)
    if path.is_file():
        size = path.stat().st_size
        return file_digest(path) if size <= _WHOLE_FILE else size
    return None
