"""Looking into the files that the demonstration writes."""

import re
from pathlib import Path

import torch

from mmsw.checkpoint import load_checkpoint_file


def small_kernels(path: Path) -> dict[str, torch.Tensor]:
    """Weights of the small filters of a saved backbone or model, by their name in the backbone."""
    state = load_checkpoint_file(path)['state_dict']
    found = {key.removeprefix('backbone.'): value for key, value in state.items()}
    return {key: value for key, value in found.items() if re.search(r'paths\.\d\.weight', key)}
