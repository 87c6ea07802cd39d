"""The sparse start of a network without shift-wise layers: its dense start, pruned at once."""

from __future__ import annotations

from pathlib import Path

from mmengine.model import PretrainedInit

import mmsw
from mmsw.apis.backbone import build_backbone
from mmsw.checkpoint import save_checkpoint_file
from mmsw.sparsity import Pruning, PruningSettings, set_masks

from .networks import Network


def prune_start(network: Network, dense: Path, path: Path, sparsity: float) -> None:
    """Prune the single weights of the smallest magnitude of each layer, and save.

    The first layer stays dense, as tools/prune.py leaves it by default. The file holds plain zeros
    and no masks, as those of most other tools do.

    Args:
        network: Whose backbone it is.
        dense: File of the dense start.
        path: File to write.
        sparsity: Share of the weights of each layer.
    """
    backbone = build_backbone(network.cfg)
    PretrainedInit(str(dense))(backbone)
    pruning = Pruning(backbone, PruningSettings(sparsity, 'weight'))
    set_masks(backbone, pruning.masks())
    state = backbone.state_dict()
    plain = {key: value for key, value in state.items() if not key.endswith('.mask')}
    save_checkpoint_file({'meta': {'sparsity': sparsity}, 'state_dict': plain}, path)


def pruning_files() -> list[Path]:
    """Source that decides what is pruned."""
    package = Path(mmsw.__file__).parent
    return [Path(__file__), *(package / 'sparsity' / f'{name}.py' for name in _SOURCE)]


_SOURCE = ('pruning', 'prunable', 'choice', 'units', 'granularity')
