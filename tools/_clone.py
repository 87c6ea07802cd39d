"""Imported by every tool: makes mmsw importable from a clone that is not installed."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('mmsw') is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
