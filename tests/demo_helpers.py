"""Calling the demonstration's tools, and looking into the files that they write."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import torch

from mmsw.checkpoint import load_checkpoint_file

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs/demo/upernet_sw_mini_scenes.py'


def load_tool(name: str) -> ModuleType:
    """A script of ``tools/`` as a module."""
    spec = importlib.util.spec_from_file_location(f'{name}_tool', ROOT / f'tools/{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def small_kernels(path: Path) -> dict[str, torch.Tensor]:
    """Weights of the small filters of a saved backbone or model, by their name in the backbone."""
    state = load_checkpoint_file(path)['state_dict']
    found = {key.removeprefix('backbone.'): value for key, value in state.items()}
    return {key: value for key, value in found.items() if re.search(r'paths\.\d\.weight', key)}
