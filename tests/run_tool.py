"""Running a tool of the repository in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tool(name: str, *words: object) -> int:
    """The exit code of a tool."""
    before = sys.argv
    sys.argv = [f'{name}.py']
    try:
        main = runpy.run_path(str(ROOT / 'tools' / f'{name}.py'))['main']
        return main([str(word) for word in words])
    finally:
        sys.argv = before
