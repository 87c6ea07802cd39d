"""The network of a config with the weights of a checkpoint, and the file that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmsw.checkpoint import (
    add_record,
    check_masks_placed,
    only_data_is_read,
    read_checkpoint,
    save_checkpoint_file,
    settle_zeros,
    undo_torch_prune,
)
from mmsw.checkpoint.folded import refuse_folded
from mmsw.checkpoint.trained import check_complete, check_fills, fill, state_dict_of, take_form
from mmsw.errors import CheckpointError, SparsityLostError
from mmsw.sparsity import lost_zeros, masks

from ..model_building import build_model

_MASK = '.mask'


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that a training run saved.

    Attributes:
        model: In training form, on the CPU, in evaluation mode.
        state: Its tensors as the file has them.
        meta: What the file says beside them.
    """

    model: nn.Module
    state: MutableMapping[str, Tensor]
    meta: dict[str, Any]

    @classmethod
    def load(cls, cfg: Config, scope: str, filename: str) -> TrainedNetwork:
        """Build the model of a config and fill it.

        Args:
            cfg: The config; its toolbox is registered.
            scope: Of its toolbox.
            filename: Checkpoint of the whole model.

        Raises:
            UsageError: If the model cannot be built.
            CheckpointError: If the file is damaged, folded, or of another config.
        """
        with DefaultScope.overwrite_default_scope(scope), only_data_is_read():
            model = revert_sync_batchnorm(build_model(cfg))
        saved = read_checkpoint(filename)
        state = state_dict_of(saved)
        plain = undo_torch_prune(state, filename)
        for key in state.keys() - plain.keys():
            del state[key]
        state.update(plain)
        refuse_folded(state, model, filename)
        check_fills(state, model, filename)
        take_form(model, state, filename)
        check_complete(state, model, filename)
        for key in check_masks_placed(state, model, filename, trains=False):
            del state[key]
        settle_zeros(state, saved, filename, {f'{name}{_MASK}' for name in masks(model)})
        fill(model, state, filename)
        meta = saved.get('meta') if isinstance(saved, Mapping) else None
        return cls(model.eval(), state, dict(meta) if isinstance(meta, Mapping) else {})

    def save(self, path: Path, **records: Any) -> None:
        """Write the tensors of the file, pruned as the model is, whole or not at all.

        Pruned weights are zero in the file, and each has its mask beside it. Nothing else changes
        but the record of mmsw. State of a training (optimizer, schedule, averages) stays out: it
        belongs to other weights.

        Args:
            path: File to write.
            records: What else goes into its ``meta``.

        Raises:
            CheckpointError: If it cannot be written.
            SparsityLostError: If a pruned weight would not be zero in it.
        """
        pruned = {
            name: layer.mask.cpu()
            for name, layer in self.model.named_modules(remove_duplicate=False)
            if hasattr(layer, 'mask') and hasattr(layer, 'observe_gradients')
        }  # by all names that a layer has
        state = dict(self.state)
        for name, mask in pruned.items():
            weight = f'{name}.weight'
            state[weight] = state[weight].masked_fill(~mask, 0.0)
            state[f'{name}{_MASK}'] = mask
        lost = lost_zeros(state, pruned)
        if lost:
            raise SparsityLostError(f'pruned weights are not zero: {lost}; nothing was written')
        checkpoint = {'meta': {**self.meta, **records}, 'state_dict': state}
        add_record(checkpoint, self.model)
        try:
            save_checkpoint_file(checkpoint, path)
        except OSError as error:
            raise CheckpointError(f'{path} cannot be written: {error}') from error
