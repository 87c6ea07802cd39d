"""The config of a training run as text that every tool of the toolboxes reads."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.errors import UsageError
from mmsw.whole_file import write_whole

from .run_config import training_config

_SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def print_config(
    config: str | os.PathLike[str] | Config,
    out: str | os.PathLike[str] | None = None,
    **wishes: Any,
) -> None:
    """Print the complete config of a run, or write it to a file.

    Args:
        config: As for :func:`mmsw.apis.build_runner`.
        out: File to write, which must not exist; ``None``: the text goes to the standard output,
            and everything else that is said on the way to the standard error.
        wishes: Further arguments of :func:`mmsw.apis.build_runner`.

    Raises:
        UsageError: If the config cannot be read or written, or a wish does not apply to it.
    """
    path = None if out is None else _free_file(Path(out))
    with contextlib.redirect_stdout(sys.stderr):
        plan = training_config(config, **wishes, only_shown=True)
        for _, text in plan.notes:
            print(text)
        # Neither the comments of the file nor its variables: what is left is what a run uses.
        cfg = Config(plan.cfg._to_lazy_dict(), format_python_code=plan.cfg._format_python_code)
        text = cfg.pretty_text if path is None else ''
    if path is None:
        print(text.rstrip())
        return
    write_whole(path, lambda temporary: cfg.dump(temporary))
    print(f'wrote {path}', file=sys.stderr)


def _free_file(path: Path) -> Path:
    if path.suffix not in _SUFFIXES:
        raise UsageError(f'--out {path}: expected the name of a {", ".join(_SUFFIXES)} file')
    if path.exists():
        raise UsageError(f'--out {path} exists: remove it, or name another file')
    return path
