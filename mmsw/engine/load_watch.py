"""Which weights of a network a file fills while a run starts, and the masks that it brings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.sparsity import from_torch_prune
from mmsw.sparsity.attach import attach_mask
from mmsw.sparsity.layer_masks import full_mask

_PARTS = ('weight', 'mask', 'weight_orig', 'weight_mask')


class LoadWatch:
    """Stands before the loading of every layer, whoever loads it and from whatever file.

    - It notes which weights are filled. Zeros in others come from an initialisation.
    - A layer for which the file brings a mask gets one there and then; what
      ``torch.nn.utils.prune`` has saved becomes a weight and a mask.
    - Where a file brings a weight without a mask, the mask that an earlier file brought is opened.

    Copies of the network are not watched.

    Args:
        net: The network, before it is initialised.
    """

    def __init__(self, net: nn.Module) -> None:
        self.loaded: set[str] = set()
        self._net = net
        self._names = {module: name for name, module in net.named_modules()}
        self._own = {name for name, module in net.named_modules() if hasattr(module, 'mask')}
        shares = {name: _zero_share(weight) for name, weight in _weights(net)}
        self._set_before = {name: share for name, share in shares.items() if 0 < share < 1}
        self._handles = [
            module._register_load_state_dict_pre_hook(self, with_module=True)
            for module in self._names
            if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
        ]

    def __deepcopy__(self, memo: dict) -> LoadWatch:
        return self

    def __call__(
        self, layer: nn.Module, state: MutableMapping[str, Any], prefix: str, *rest: Any
    ) -> None:
        name = self._names.get(layer)
        if name is None:
            return
        self._undo_torch_prune(state, prefix)
        for key, parameter in layer.named_parameters(recurse=False):
            if getattr(state.get(prefix + key), 'shape', None) == parameter.shape:
                self.loaded.add(f'{name}.{key}')
        if name not in self._own and f'{name}.weight' in self.loaded:
            self._take_mask(layer, state, prefix)

    def note(self, state: Mapping[str, Any]) -> None:
        """Note what a state dict of the whole network fills, for runners that load before this."""
        for name, weight in _weights(self._net):
            if getattr(state.get(name), 'shape', None) == weight.shape:
                self.loaded.add(name)

    def close(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def brought(self) -> Iterator[nn.Module]:
        """Layers that got their mask from a file since the watch began."""
        for module, name in self._names.items():
            if name not in self._own and hasattr(module, 'mask_gate'):
                yield module

    def initial(self) -> set[str]:
        """Weights that no file filled and that had no zeros of their own before, by name.

        Names of weights called ``weight`` come without that ending: those of their layers. One that
        was zero throughout is such a one too: that is how layers are initialised, not pruned.
        """
        return {
            name.removesuffix('.weight')
            for name, _ in _weights(self._net)
            if name not in self.loaded and name not in self._set_before
        }

    def lost_at_start(self, min_share: float) -> list[str]:
        """Weights with zeros enough before the run, which it has initialised anew."""
        return [
            name
            for name, weight in _weights(self._net)
            if self._set_before.get(name, 0) >= min_share > _zero_share(weight)
            and name not in self.loaded
        ]

    def _undo_torch_prune(self, state: MutableMapping[str, Any], prefix: str) -> None:
        parts = {prefix + part: state[prefix + part] for part in _PARTS if prefix + part in state}
        plain = from_torch_prune(parts)
        for key in parts.keys() - plain.keys():
            del state[key]
        state.update(plain)

    def _take_mask(self, layer: nn.Module, state: MutableMapping[str, Any], prefix: str) -> None:
        mask, weight = state.get(f'{prefix}mask'), state[f'{prefix}weight']
        if mask is None:
            if hasattr(layer, 'mask_gate'):
                layer.mask.fill_(True)
            return
        if weight.ndim < 2:
            return
        try:
            mask = full_mask(mask, weight, f'{prefix}mask')
        except SparsityError as error:
            del state[f'{prefix}mask']
            print_log(f'left out: {error}', logger='current', level=logging.WARNING)
            return
        attach_mask(layer)
        state[f'{prefix}mask'] = mask


def _weights(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1:
            yield name, parameter.detach()


def _zero_share(weight: Tensor) -> float:
    return 1 - int(torch.count_nonzero(weight)) / weight.numel() if weight.numel() else 0.0
