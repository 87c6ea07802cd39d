"""How to get what an extra of mmsw needs: words for error messages.

Imports nothing but the standard library, so that tools can ask it where even torch is absent.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from pathlib import Path

_STACKS = ('openmmlab', 'onedl')  # the extras that `make setup` installs


def how_to_install(extra: str) -> str:
    """How to install the packages of an extra here.

    From a checkout of mmsw that is the checkout itself. Where only the package is installed, its
    metadata name the packages. mmsw is on no package index: what has this name there is not ours.

    Args:
        extra: A name in ``requirements/``, for instance ``'openmmlab'``.

    Returns:
        A command, and where to run it.
    """
    command = f"pip install --no-build-isolation '.[{extra}]'"
    root = Path(__file__).resolve().parents[1]
    if (root / 'setup.py').is_file() and (root / 'requirements').is_dir():
        if extra in _STACKS:
            stack = '' if extra == _STACKS[0] else f' STACK={extra}'
            return f'in {root} run `make setup{stack}` or `{command}`'
        return f'in {root} run `{command}`'
    packages = _packages_of(extra)
    if packages:
        return f'`pip install --no-build-isolation {shlex.join(packages)}`'
    return f'in a checkout of mmsw run `{command}`'


def _packages_of(extra: str) -> list[str]:
    """What the installed distribution of mmsw requires for an extra; empty if none tells."""
    for name in importlib.metadata.packages_distributions().get('mmsw', []):
        lines = importlib.metadata.requires(name) or []
        found = [
            line.partition(';')[0].strip()
            for line in lines
            if re.search(rf'\bextra\s*==\s*[\'"]{re.escape(extra)}[\'"]', line)
        ]
        if found:
            return found
    return []
