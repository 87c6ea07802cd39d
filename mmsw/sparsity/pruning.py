"""Pruning of any network, at once or step by step: scores of units, and masks that only shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .allocate import check_sparsity
from .attach import attach_mask
from .choice import choose_units, number_to_keep
from .granularity import check_possible, granularity_of
from .layer_masks import layer_of
from .prunable import prunable_layers
from .units import kept_units, kept_weight, mask_of_units, unit_norms, unit_sums

BYS = ('magnitude', 'snip', 'random')
_SEEDS = 2**32  # that numpy takes


@dataclass(frozen=True)
class PruningSettings:
    """How a network is pruned.

    Attributes:
        sparsity: Share of the units to prune, in ``[0, 1)``; ``None`` only with a granularity
            ``'N:M'``, which says it.
        granularity: What a unit is: ``'filter'``, ``'channel'``, ``'block RxC'``, ``'N:M'`` or
            ``'weight'``, see :class:`mmsw.sparsity.granularity.Granularity`.
        scope: Regular expression for names of weights; ``None``: all layers but the first one and
            those that predict, see :func:`mmsw.sparsity.prunable.prunable_layers`.
        by: What goes first: units of the smallest ``'magnitude'`` (root mean square of their
            weights); of the smallest ``'snip'``, the sum over their weights of ``|w * dL/dw|``
            (arXiv 1810.02340; with signs, the sum of a filter before a batch norm is zero); or
            ``'random'`` ones. Paths of one shift-wise layer share the sum of their scores.
        per_layer: Every layer prunes this share; otherwise the units of all layers are ranked
            together.
        include_all: Without a scope, also prune the first and the last layers.
        seed: Of ``'random'``, not negative.
    """

    sparsity: float | None = None
    granularity: str = 'weight'
    scope: str | None = None
    by: str = 'magnitude'
    per_layer: bool = True
    include_all: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        granularity = granularity_of(self.granularity)
        most = granularity.most_sparsity
        if self.sparsity is None:
            if most is None:
                raise ValueError(
                    f'granularity {self.granularity!r} needs sparsity, a share in [0, 1)'
                )
            object.__setattr__(self, 'sparsity', float(most))
        if isinstance(self.sparsity, bool) or not isinstance(self.sparsity, (int, float)):
            raise ValueError(f'sparsity must be a number in [0, 1), got {self.sparsity!r}')
        check_sparsity(self.sparsity)
        check_possible(granularity, self.sparsity)
        if self.by not in BYS:
            raise ValueError(f'by must be one of {BYS}, got {self.by!r}')
        if self.include_all and self.scope is not None:
            raise ValueError('include_all is for a pruning without scope: leave one of them out')
        if self.seed < 0:
            raise ValueError(f'seed must not be negative, got {self.seed}')
        if self.seed >= _SEEDS:
            raise ValueError(f'seed must be below 2**32, got {self.seed}')


class Pruning:
    """Chooses masks of a network; :func:`mmsw.sparsity.set_masks` sets them.

    Args:
        net: The network; layers that are chosen and bring no mask get one that keeps everything.
        settings: How.
        only_trained: Leave out layers whose weight is frozen. ``'snip'`` always does: it has no
            gradient of them.

    Attributes:
        layers: What is pruned, by name.
        left_out: By name of the layers that could be pruned but are not, the reason.

    Raises:
        SparsityError: If there is nothing to prune, or the scope does not fit.
    """

    def __init__(
        self, net: nn.Module, settings: PruningSettings, only_trained: bool = False
    ) -> None:
        self.net, self.settings = net, settings
        self.granularity = granularity_of(settings.granularity)
        found = prunable_layers(net, self.granularity, settings.scope, settings.include_all)
        self.layers, self.left_out = dict(found.layers), dict(found.left_out)
        if only_trained or settings.by == 'snip':
            frozen = [name for name, la in self.layers.items() if not la.weight.requires_grad]
            for name in frozen:
                self.left_out[name] = 'frozen'
                del self.layers[name]
            if not self.layers:
                raise SparsityError(
                    f'there is nothing to prune: all of {listed(frozen)} are frozen'
                )
        taken = [n for n, la in self.layers.items()
                 if hasattr(la, 'mask') and not hasattr(la, 'observe_gradients')]  # fmt: skip
        if taken:
            raise SparsityError(f'these layers have something else called mask: {listed(taken)}')
        for layer in self.layers.values():
            attach_mask(layer)

    def masks(
        self, sparsity: float | None = None, gradients: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Masks of the given sparsity; nothing is set yet.

        Args:
            sparsity: Share of the units that are pruned then, those that are already included;
                ``None``: that of the settings. A layer that is sparser already stays as it is.
            gradients: For ``by='snip'``: gradient of the loss by layer name.

        Returns:
            By layer name, a mask of the shape of the weight; True = keep.

        Raises:
            SparsityError: If a weight or gradient is not finite, or all gradients of a layer are
                zero.
            ValueError: If a gradient is missing.
        """
        unit = self.settings.granularity
        kept = {name: kept_units(layer.mask, unit) for name, layer in self.layers.items()}
        new = choose_units(
            self._scores(gradients),
            kept,
            self.settings.sparsity if sparsity is None else sparsity,
            self.granularity,
            self.settings.per_layer,
        )
        return {n: mask_of_units(keep, self.layers[n].mask, unit) for n, keep in new.items()}

    def numbers(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units that the masks of the network, or the given ones, keep, by layer name."""
        if masks is None:
            masks = {name: layer.mask for name, layer in self.layers.items()}
        unit = self.settings.granularity
        return {name: int(kept_units(mask, unit).sum()) for name, mask in masks.items()}

    def sizes(self) -> dict[str, int]:
        """Units by layer name, kept or not."""
        return {n: self.granularity.number(la.weight.shape) for n, la in self.layers.items()}

    def target(self, sparsity: float | None = None) -> int:
        """Units that a network without pruned ones keeps in all at a sparsity."""
        share = self.settings.sparsity if sparsity is None else sparsity
        return number_to_keep(self.sizes(), share, self.settings.per_layer)

    def _scores(self, gradients: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        if self.settings.by == 'snip':
            gradients = self._checked(gradients)
        groups: dict[str, list[str]] = {}  # paths by layer
        for name in self.layers:
            groups.setdefault(layer_of(name), []).append(name)
        scores = {}
        generator = torch.Generator().manual_seed(self.settings.seed)  # the same at every call
        for names in groups.values():
            shared = self._score(names, gradients, generator)
            scores.update(dict.fromkeys(names, shared))
        return {name: scores[name] for name in self.layers}

    def _score(
        self,
        names: list[str],
        gradients: Mapping[str, Tensor] | None,
        generator: torch.Generator,
    ) -> Tensor:
        unit, layers = self.settings.granularity, [self.layers[name] for name in names]
        shape = layers[0].weight.shape
        if self.settings.by == 'random':
            number = self.granularity.number(shape)
            return torch.rand(number, generator=generator, dtype=torch.float64)
        if self.settings.by == 'magnitude':
            size = shape.numel() / self.granularity.number(shape)
            return sum(unit_norms(kept_weight(la), unit) for la in layers) / size**0.5
        return sum(
            unit_sums((kept_weight(la).cpu().double() * gradients[name].cpu().double()).abs(), unit)
            for name, la in zip(names, layers, strict=True)
        )

    def _checked(self, gradients: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        missing = [name for name in self.layers if name not in (gradients or {})]
        if missing:
            raise ValueError(f"by='snip' needs gradients; there are none of {listed(missing)}")
        silent = [name for name in self.layers if not bool(gradients[name].any())]
        if silent:
            raise SparsityError(
                "by='snip' ranks units by the gradient of the loss, which is zero in all of "
                f'{len(silent)} of {len(self.layers)} layers ({listed(silent)}): leave them out '
                "with scope, or choose by='magnitude'"
            )
        return gradients
