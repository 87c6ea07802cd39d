"""Zeros that weights of any network have already: which layers they are in, and masks for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .attach import attach_mask, compiled_scope
from .layer_masks import masked_layers, set_mask
from .patterns import Pattern, pattern_of


@dataclass
class ZerosFound:
    """What :func:`attach_masks_of_zeros` found in the weights of a network.

    Layers are named as in ``named_modules``, other weights by their parameter.

    Attributes:
        kept: Layers with a mask that prunes something, and the structure of it.
        scarce: Layers with too few zeros to be meant, and how many.
        dense: Layers without any zero.
        initial: Layers whose zeros an initialisation left; they are trained.
        left: Weights with zeros enough that no mask can keep, and why.
    """

    kept: dict[str, Pattern] = field(default_factory=dict)
    scarce: dict[str, int] = field(default_factory=dict)
    dense: list[str] = field(default_factory=list)
    initial: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    @property
    def pruned(self) -> int:
        """Weights that the masks prune."""
        return sum(pattern.pruned for pattern in self.kept.values())

    @property
    def total(self) -> int:
        """Weights of the layers that are pruned."""
        return sum(pattern.total for pattern in self.kept.values())

    @property
    def emptied(self) -> list[str]:
        """Layers that nothing is left of."""
        return [name for name, pattern in self.kept.items() if pattern.pruned == pattern.total]

    def __str__(self) -> str:
        share = self.pruned / self.total if self.total else 0.0
        kinds = Counter(pattern.kind for pattern in self.kept.values())
        lines = [
            f'{len(self.kept)} layers keep {self.pruned} of {self.total} weights ({share:.2%}) at '
            'zero; by pattern: '
            + (', '.join(f'{kind} in {number}' for kind, number in kinds.most_common()) or 'none')
        ]
        if self.scarce:
            lines.append(
                f'{len(self.scarce)} layers have too few zeros to be meant '
                f'({sum(self.scarce.values())} in all), and are trained: {listed(self.scarce)}'
            )
        if self.initial:
            lines.append(
                f'{len(self.initial)} layers have zeros that their initialisation left, and are '
                f'trained: {listed(self.initial)}'
            )
        if self.dense:
            lines.append(f'{len(self.dense)} layers are dense')
        return '\n'.join(lines)


def attach_masks_of_zeros(
    net: nn.Module,
    scope: str = '.*',
    min_share: float = 0.05,
    initial: Collection[str] = (),
    only_masks: bool = False,
) -> ZerosFound:
    """Give every layer that has exact zeros enough a mask that keeps them, whatever the network.

    A layer is a module with a floating-point ``weight`` of at least two dimensions. A mask that a
    layer has already, and that prunes something, stays as it is; one that prunes nothing gets the
    zeros. A weight that several layers share gets one mask, in the first of them. Biases, norms and
    other vectors are left alone.

    Args:
        net: A network; changed in place. Its weights must be those that training starts from.
        scope: Regular expression that a parameter's name contains a match of; others are left
            alone.
        min_share: Share of a weight that must be zero, in ``(0, 1]``; fewer zeros are no pruning.
        initial: Layers whose zeros come from their initialisation: they get no mask.
        only_masks: Attach nothing; only layers that have masks count.

    Returns:
        What was found.

    Raises:
        SparsityError: If the scope is no regular expression or matches no weight.
        ValueError: If ``min_share`` is out of range.
    """
    check_min_share(min_share)
    masked = dict(masked_layers(net))
    found = ZerosFound()
    for name, weight in _weights(net, scope):
        layer_name, _, kind = name.rpartition('.')
        layer = net.get_submodule(layer_name)
        if layer_name in masked and kind == 'weight' and not bool(layer.mask.all()):
            found.kept[layer_name] = pattern_of(layer.mask)
            continue
        zeros = weight.numel() - int(torch.count_nonzero(weight))
        shown = layer_name if kind == 'weight' else name
        enough = zeros >= min_share * weight.numel() and zeros > 0
        if kind != 'weight':
            if enough and shown not in initial:
                found.left[name] = 'they belong to no layer with a weight of its own'
        elif not zeros:
            found.dense.append(shown)
        elif shown in initial:
            found.initial.append(shown)
        elif not enough:
            found.scarce[shown] = zeros
        elif layer_name not in masked and hasattr(layer, 'mask'):
            found.left[name] = 'the layer has something else called mask'
        elif only_masks:
            found.left[name] = 'the file brings no mask of them'
        else:
            attach_mask(layer)
            set_mask(layer, weight != 0)
            found.kept[layer_name] = pattern_of(layer.mask)
    return found


def check_min_share(min_share: float) -> None:
    """Raise ``ValueError`` unless it is in ``(0, 1]``."""
    if isinstance(min_share, bool) or not isinstance(min_share, (int, float)):
        raise ValueError(f'min_share must be a number in (0, 1], got {min_share!r}')
    if not 0 < min_share <= 1:
        raise ValueError(f'min_share must be in (0, 1], got {min_share}')


def _weights(net: nn.Module, scope: str) -> Iterator[tuple[str, Tensor]]:
    """Weights of at least two dimensions that the scope chooses, each one once."""
    matches = compiled_scope(scope).search
    weights = {
        name: parameter.detach()
        for name, parameter in net.named_parameters()
        if parameter.ndim > 1 and parameter.is_floating_point()
    }
    chosen = [name for name in weights if matches(name)]
    if not chosen:
        raise SparsityError(
            f'scope {scope!r} matches no weight of at least two dimensions; there are '
            f'{listed(weights)}'
        )
    return ((name, weights[name]) for name in chosen)
