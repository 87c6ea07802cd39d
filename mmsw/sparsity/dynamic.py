"""Dynamic sparse training of one network: which filters to start with, which to exchange when.

The choices are made elsewhere: the first one in :mod:`mmsw.sparsity.start`, the number that each
layer exchanges in :mod:`mmsw.sparsity.redistribution`, the units in
:mod:`mmsw.sparsity.layer_exchange`. This class knows the layers, the order of things and the random
generator. It needs no training framework: mmengine's hook and the tests use it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .attach import layers_in_scope, mask_of_zeros
from .dynamic_settings import DynamicSettings
from .dynamic_state import DynamicState, check_kept, damaged
from .exchange import exchange_rate, num_exchanged
from .granularity import granularity_of
from .group_exchange import GroupExchange, check_groups
from .layer_exchange import OwnMasks, PathUnits, SharedMask
from .layer_masks import layer_of, masks, set_masks
from .optimizer_state import reset_state
from .redistribution import mean_magnitude, redistribute
from .start import start_units
from .units import kept_units, kept_weight, mask_of_units, unit_norms, unit_sums


class DynamicSparsity:
    """Chooses the masks of a network at the start of training and again and again while it trains.

    Choosing and applying are two steps, so that one of several processes can choose for all. What
    is chosen depends on the weights, the gradients given and the state of a private random
    generator, on nothing else.

    Args:
        net: The network; layers of it that are chosen by ``scope`` get masks at once. Weights that
            are not trained (frozen stages) keep the masks that they have.
        settings: How.

    Raises:
        SparsityError: If nothing can be pruned: no masked layer, none that is trained, or a scope
            that does not fit.
    """

    def __init__(self, net: nn.Module, settings: DynamicSettings) -> None:
        self.net, self.settings = net, settings
        found = layers_in_scope(net, settings.scope)
        self.layers = {name: la for name, la in found.items() if la.weight.requires_grad}
        self.frozen = sorted(set(found) - set(self.layers))
        if not self.layers:
            raise SparsityError(
                'there is nothing to prune: '
                + (f'all of {listed(self.frozen)} are frozen' if found else 'no shift-wise layer')
            )
        self.groups: dict[str, list[str]] = {}  # paths by layer
        for name in self.layers:
            self.groups.setdefault(layer_of(name), []).append(name)
        self.granularity = granularity_of(settings.granularity)
        self._check_fit()
        self.updates = 0
        self.generator = torch.Generator().manual_seed(settings.seed)

    def _check_fit(self) -> None:
        """Refuse layers that cannot be cut into the units asked for."""
        misfits = {
            name: self.granularity.misfit(la.weight.shape) for name, la in self.layers.items()
        }
        misfits = {name: why for name, why in misfits.items() if why}
        if misfits:
            name, why = next(iter(misfits.items()))
            raise SparsityError(
                f'granularity {str(self.granularity)!r} does not fit {len(misfits)} of '
                f'{len(self.layers)} layers: {listed(misfits)}; of {name}, {why}. Choose others '
                'with scope, or another granularity'
            )
        several = [group for group, names in self.groups.items() if len(names) > 1]
        if several and self.granularity.is_of_groups:
            raise SparsityError(
                f'granularity {str(self.granularity)!r} is for layers of one path; '
                f'{listed(several)} have several, which come to share one mask'
            )

    def start_masks(
        self, gradients: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Masks to start with; nothing is set yet.

        Args:
            gradients: For ``'snip'``: gradient of the loss by layer name, of the weights' shape.

        Returns:
            Masks by layer name, and names of layers that keep a single unit per path, the least
            there is: a stricter choice would have emptied them.

        Raises:
            SparsityError: If a weight or a gradient is not finite, the network to go on from
                (``'from_checkpoint'``) is dense, or a layer that ``'snip'`` must rank has no
                gradient other than zero.
            ValueError: If ``'snip'`` is given no gradients.
        """
        settings = self.settings
        if settings.start == 'from_checkpoint':
            current = {name: mask_of_zeros(layer) for name, layer in self.layers.items()}
            if all(bool(mask.all()) for mask in current.values()):
                raise SparsityError(
                    "start='from_checkpoint', but nothing is pruned in the network: load a sparse "
                    "checkpoint (model.backbone.init_cfg), or choose start='snip'"
                )
            if self.granularity.is_of_groups:
                for name, mask in current.items():
                    check_groups(kept_units(mask, settings.granularity), self.granularity, name)
            return current, []
        kept, least = start_units(self.layers, self.groups, settings, gradients)
        return {
            name: mask_of_units(kept[group], self.layers[name].mask, settings.granularity)
            for group, names in self.groups.items()
            for name in names
        }, least

    def next_masks(
        self,
        step: int,
        steps: int,
        gradients: Mapping[str, Tensor] | None = None,
        momentum: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], float]:
        """Masks after one more exchange; nothing is set yet, but the generator moves on.

        A layer whose gradients are all zero exchanges nothing: random depth has skipped it, and
        nothing tells which units to grow, or how many.

        Args:
            step: Iterations done.
            steps: Iterations over which the share falls from ``prune_rate`` to ``end_rate``.
            gradients: For growth by gradient or momentum: dense ones by layer name.
            momentum: For redistribution by momentum: running means of them, by layer name.

        Returns:
            Masks by layer name, and the share of the kept units that was exchanged at most.

        Raises:
            SparsityError: If a weight or a gradient that matters is not finite.
            ValueError: If what the settings need is not given.
        """
        settings = self.settings
        if settings.grow != 'random' and gradients is None:
            raise ValueError(f'grow={settings.grow!r} needs gradients')
        if settings.redistribution == 'momentum' and momentum is None:
            raise ValueError("redistribution='momentum' needs momentum")
        self.updates += 1
        aligned = settings.align_interval and self.updates % settings.align_interval == 0
        rate = exchange_rate(step, steps, settings.prune_rate, settings.end_rate)

        def exchange_of(group: str) -> OwnMasks | SharedMask | GroupExchange:
            units = [self._units(name) for name in self.groups[group]]
            if self.granularity.is_of_groups:
                return GroupExchange(*units, self.granularity)
            return SharedMask(units) if aligned and len(units) > 1 else OwnMasks(units)

        told = [g for g, n in self.groups.items() if self._is_told(n, gradients, momentum)]
        # one layer at a time, unless the number of each depends on all
        layers = {g: exchange_of(g) for g in told} if settings.redistribution else {}
        numbers = self._redistributed(layers, rate, momentum)
        new = {}
        for group, names in self.groups.items():
            if group not in told:
                new.update({name: self.layers[name].mask.clone() for name in names})
                continue
            layer = layers.get(group) or exchange_of(group)
            even = partial(num_exchanged, rate=rate)
            dropped, grown = numbers.get(group) or (layer.dropped(even), None)
            units = layer.exchange(dropped, grown, self._growth(names, gradients))
            new.update(
                {
                    name: mask_of_units(kept, self.layers[name].mask, settings.granularity)
                    for name, kept in zip(names, units, strict=True)
                }
            )
        return new, rate

    def _is_told(
        self,
        names: Sequence[str],
        gradients: Mapping[str, Tensor] | None,
        momentum: Mapping[str, Tensor] | None,
    ) -> bool:
        """Whether what decides about a layer is not all zero."""
        by_growth = self.settings.grow == 'random' or any(bool(gradients[n].any()) for n in names)
        by_number = self.settings.redistribution != 'momentum' or any(
            bool(momentum[n].any()) for n in names
        )
        return by_growth and by_number

    def _redistributed(
        self,
        layers: Mapping[str, OwnMasks | SharedMask],
        rate: float,
        momentum: Mapping[str, Tensor] | None,
    ) -> dict[str, tuple[list[int], int]]:
        """What each of the layers drops, by path, and grows."""
        shares = {group: self._share(self.groups[group], momentum) for group in layers}
        return redistribute(layers, rate, shares)

    def _share(self, names: Sequence[str], momentum: Mapping[str, Tensor] | None) -> float:
        """In proportion to what a layer grows, see :mod:`mmsw.sparsity.redistribution`."""
        how = self.settings.redistribution
        if how == 'nonzeros':
            norms = (self._units(name).importance for name in names)
            return float(sum(int(values.count_nonzero()) for values in norms))
        values = [momentum[n] if how == 'momentum' else self.layers[n].weight for n in names]
        return mean_magnitude(values, [self.layers[name].mask for name in names])

    def _units(self, name: str) -> PathUnits:
        layer, granularity = self.layers[name], self.settings.granularity
        weight = kept_weight(layer)
        return PathUnits(
            kept_units(layer.mask, granularity),
            unit_norms(weight, granularity),
            unit_sums(weight, granularity) if self.settings.prune == 'set' else None,
        )

    def _growth(
        self, names: Sequence[str], gradients: Mapping[str, Tensor] | None
    ) -> Callable[[int | None], Tensor]:
        """Scores of the units for growth: of one path, or of all paths together."""
        granularity = self.settings.granularity

        def scores(path: int | None) -> Tensor:
            if self.settings.grow == 'random':
                number = len(kept_units(self.layers[names[0]].mask, granularity))
                return torch.rand(number, generator=self.generator, dtype=torch.float64)
            chosen = names if path is None else [names[path]]
            return sum(unit_norms(gradients[name], granularity) for name in chosen)

        return scores

    def num_kept(self, new: Mapping[str, Tensor] | None = None) -> int:
        """Units that the masks of the network, or the given ones, keep in all."""
        if new is None:
            return sum(self._kept_by_layer().values())
        return sum(int(kept_units(mask, self.settings.granularity).sum()) for mask in new.values())

    def num_units(self) -> int:
        """Units of the network, kept or not."""
        return sum(self.granularity.number(la.weight.shape) for la in self.layers.values())

    def num_weights(self) -> int:
        """Single weights that the masks of the network keep."""
        return sum(int(layer.mask.sum()) for layer in self.layers.values())

    def num_partial(self) -> int:
        """Units that are kept in part: pruned in single weights by an earlier training."""
        units = self.settings.granularity
        parts = ((kept_units(la.mask, units), kept_units(~la.mask, units))
                 for la in self.layers.values())  # fmt: skip
        return sum(int((some & missing).sum()) for some, missing in parts)

    @torch.no_grad()
    def apply(
        self,
        new: Mapping[str, Tensor],
        optimizers: Iterable[torch.optim.Optimizer] = (),
        averaged: Iterable[nn.Module] = (),
    ) -> int:
        """Set masks: what is removed is zero at once, what is grown starts at zero, both without
        a past in the optimizer.

        Args:
            new: Masks by layer name.
            optimizers: That train the network.
            averaged: Networks of the same structure that hold averages of its weights; they get the
                same masks.

        Returns:
            Weights that were grown.
        """
        old = masks(self.net)
        optimizers, grown = list(optimizers), 0
        set_masks(self.net, new)
        for name, mask in new.items():
            weight = self.layers[name].weight
            fresh = mask & ~old[name]
            weight.masked_fill_(fresh, 0.0)
            grown += int(fresh.sum())
            for optimizer in optimizers:
                reset_state(optimizer, weight, ~(mask & old[name]))
        for net in averaged:
            set_masks(net, new)
        return grown

    def state_dict(self) -> dict:
        """What is needed, beside the masks in the network, to go on exactly as from here."""
        return self.state().as_dict()

    def state(self, **parts: Any) -> DynamicState:
        """The same as an object; arguments replace parts of it."""
        mine = {
            'settings': dict(vars(self.settings)),
            'kept': self._kept_by_layer(),
            'updates': self.updates,
            'generator': self.generator.get_state(),
        }
        return DynamicState(**{**mine, **parts})

    def load_state_dict(self, saved: Mapping) -> DynamicState:
        """Go on from a :meth:`state_dict`; the network must have its weights and masks already.

        The first files say nothing of settings and of what is kept, so these are not compared.

        Returns:
            What was read.

        Raises:
            SparsityError: If the state is of another sparsity, granularity or scope, of other
                layers or masks than those of the network, of a newer version of this project, or
                damaged. Nothing has changed then.
        """
        state = DynamicState.read(saved)
        if state.settings is not None:
            self.settings.check_resumed(state.settings)
        if state.kept is not None:
            check_kept(state.kept, self._kept_by_layer(), self.granularity.unit)
        for name, mean in state.momentum.items():
            if name in self.layers and mean.shape != self.layers[name].weight.shape:
                raise damaged(
                    f'momentum of {name} is {list(mean.shape)}, expected '
                    f'{list(self.layers[name].weight.shape)}'
                )
        self.generator.set_state(state.generator.cpu())
        self.updates = state.updates
        return state

    def _kept_by_layer(self) -> dict[str, int]:
        return {
            name: int(kept_units(layer.mask, self.settings.granularity).sum())
            for name, layer in self.layers.items()
        }
