"""The JSON files that mmsw writes; each says what it is: ``{"format": "mmsw.<kind>/<version>"}``.

They are UTF-8 and strict JSON, without NaN or Infinity, and they are whole or absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UsageError
from .whole_file import write_text

VERSIONS = {  # of each kind of file; one more whenever a reader of the old form would be misled
    'benchmark_export': 1,
    'benchmark_model': 1,
    'benchmark_ops': 1,
    'benchmark_regimes': 1,
    'benchmark_sparsity': 1,
    'benchmark_transfer': 1,
    'class_scores': 1,
    'complexity': 1,
    'complexity_cover': 1,
    'complexity_modules': 1,
    'complexity_ratios': 1,
    'conversion': 1,
    'dataset_report': 1,
    'demo_data': 1,
    'demo_tables': 1,
    'exported_program': 1,
    'figures_job': 1,
    'model_tables': 1,
    'network_sparsity': 1,
    'network_sparsity_comparison': 1,
    'operator_groups': 1,
    'operator_tables': 1,
    'photographs': 1,
    'photographs_full_size': 1,
    'photographs_times': 1,
    'receptive_field': 1,
    'regime_outcomes': 1,
    'sparsity': 1,
    'sparsity_comparison': 1,
    'sparsity_tables': 1,
    'training_operator': 1,
    'training_progress': 1,
    'training_result': 1,
    'training_settings': 1,
    'transcribed_tables': 1,
    'transfer_tables': 1,
}
_FORMAT = re.compile(r'mmsw\.(\w+)/(\d+)')


def write_json(path: Path, kind: str, content: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write a JSON file, whole or not at all.

    Args:
        path: File to write; replaced if it exists.
        kind: One of ``VERSIONS``.
        content: What JSON can hold, but for the key ``format``, which is added.
        indent: Spaces per level; None for one line.

    Raises:
        ValueError: If a number is not finite.
        UsageError: If the file cannot be written there.
    """
    text = json_text(kind, content, indent)
    try:
        write_text(path, text + '\n')
    except OSError as error:
        raise UsageError(f'{path} cannot be written: {error}') from error


def read_json(path: Path, kind: str) -> dict[str, Any] | None:
    """Read a JSON file that :func:`write_json` has written.

    Args:
        path: The file. One from before the formats had names says its version alone, or nothing,
            which is version 1.
        kind: One of ``VERSIONS``.

    Returns:
        The content without the key ``format``; None if there is no such file.

    Raises:
        UsageError: If the file is no JSON, is of another kind, or of a newer version.
    """
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding='utf-8')
    except ValueError as error:
        raise UsageError(f'{path} is no JSON file: {error}') from error
    return from_json_text(text, kind, path)


def json_text(kind: str, content: Mapping[str, Any], indent: int | None = None) -> str:
    """The text that :func:`write_json` writes; arguments and errors as there."""
    named = {'format': f'mmsw.{kind}/{VERSIONS[kind]}', **content}
    return json.dumps(named, indent=indent, allow_nan=False, ensure_ascii=False)


def from_json_text(text: str, kind: str, source: object) -> dict[str, Any]:
    """The content of such a text; results and errors as of :func:`read_json`.

    Args:
        text: What :func:`json_text` made.
        kind: One of ``VERSIONS``.
        source: Where it comes from, for messages.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f'{source} is no JSON file: {error}') from error
    if not isinstance(found, dict):
        raise UsageError(f'{source} holds a {type(found).__name__}, expected an object of JSON')
    name = found.pop('format', 1)
    if type(name) is int:
        name = f'mmsw.{kind}/{name}'
    match = _FORMAT.fullmatch(str(name))
    if not match or match[1] != kind:
        raise UsageError(f'{source} says that its format is {name!r}, expected mmsw.{kind}')
    if int(match[2]) > VERSIONS[kind]:
        raise UsageError(
            f'{source} has the format {name}; this version of mmsw reads up to '
            f'mmsw.{kind}/{VERSIONS[kind]}: install a newer mmsw'
        )
    return found
