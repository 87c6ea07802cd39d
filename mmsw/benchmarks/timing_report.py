"""The report of a timing: three files, and how their text begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mmsw.json_file import write_json
from mmsw.whole_file import write_text


def write_files(
    result: dict,
    out: str | os.PathLike[str],
    kind: str,
    text: str,
    draw: Callable[[Path], object] | None = None,
) -> None:
    """Write ``benchmark.json`` and ``.md``, and with matplotlib ``benchmark.png`` and ``.svg``.

    Args:
        result: Everything that was found.
        out: Folder; existing files of these names are replaced, each of them whole or not at all.
        kind: Of the JSON file, see :mod:`mmsw.json_file`.
        text: The report as Markdown.
        draw: Writes the picture; ``None`` for none.
    """
    write_text(Path(out, 'benchmark.md'), text)
    write_json(Path(out, 'benchmark.json'), kind, result)
    if draw is None:
        return
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return
    draw(Path(out, 'benchmark.png'))


def opening(title: str, result: dict, more: Sequence[str]) -> list[str]:
    """First lines of a text: the machine, the duration, what failed, and who is not in the run.

    Args:
        title: Of the report.
        result: With ``machine``, ``seconds``, ``errors`` and ``left_out``.
        more: What else is to be said of the run, behind its duration.
    """
    lines = [f'# {title}', '']
    lines += [f'- {key}: {value}' for key, value in result['machine'].items()]
    lines += [f'- duration: {result["seconds"]} s', *more]
    for head, found in (('Errors', result['errors']), ('Left out', result['left_out'])):
        if found:
            lines += ['', f'## {head}', '', *(f'- {item}' for item in found)]
    return lines
