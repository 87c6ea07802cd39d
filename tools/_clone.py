"""Imported by every tool: makes mmsw importable from a clone that is not installed."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

if importlib.util.find_spec('mmsw') is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@contextlib.contextmanager
def toolboxes_needed() -> Iterator[None]:
    """Around the imports of a tool: says how to get what is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; mmsw and its toolboxes come with pip install 'mmsw[openmmlab]'")
