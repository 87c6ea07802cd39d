"""Where figures come from: the command, the commit of the source tree, and package versions."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from .measure import packages

ROOT = Path(__file__).resolve().parents[2]
UNKNOWN = 'unknown'  # commit of an mmsw that lies in no checkout
CODE = ('mmsw', 'tools', 'configs', 'build_ops.py', 'setup.py', 'pyproject.toml')
_PACKAGES = (
    *('torch', 'numpy', 'mmengine', 'mmcv', 'mmcv-lite', 'mmsegmentation', 'mmdet'),
    *('onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'onedl-mmdetection'),
)


def provenance() -> dict[str, object]:
    """What is kept beside figures that this process made.

    Returns:
        ``command``, as one types it at the root of the checkout; ``commit``, see
        :func:`commit_of_code`; ``date``; and ``packages``, the versions of those installed.
    """
    found = {name: at for name, at in packages(_PACKAGES).items() if at != 'not installed'}
    return dict(
        command=_command(sys.argv),
        commit=commit_of_code(),
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        packages=found,
    )


def commit_of_code(root: Path = ROOT) -> str:
    """The commit of a source tree, with ``-dirty`` where the code differs from it.

    Pages and tests do not count: they decide no figure, and a run writes into pages.

    Args:
        root: Of the tree.

    Returns:
        Hexadecimal digits; ``UNKNOWN`` without a checkout.
    """
    try:
        commit = _git(root, 'rev-parse', '--short=10', 'HEAD')
        changed = _git(root, 'status', '--porcelain', '--', *CODE)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return f'{commit}-dirty' if changed else commit


def changed_since(commit: str, root: Path = ROOT) -> int | None:
    """How many files of the code differ from a commit; None if that cannot be known.

    Args:
        commit: As :func:`commit_of_code` gives it.
        root: Of the tree.
    """
    try:
        names = _git(root, 'diff', '--name-only', commit.removesuffix('-dirty'), '--', *CODE)
        new = _git(root, 'ls-files', '--others', '--exclude-standard', '--', *CODE)
    except (OSError, subprocess.CalledProcessError):
        return None
    return len({*names.splitlines(), *new.splitlines()})


def _command(words: Sequence[str]) -> str:
    first = Path(words[0])
    tool = f'tools/{first.name}' if first.parent.name == 'tools' else first.name
    return shlex.join(['python', tool, *words[1:]])


def _git(root: Path, *words: str) -> str:
    called = ['git', '-C', str(root), *words]
    done = subprocess.run(called, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()
