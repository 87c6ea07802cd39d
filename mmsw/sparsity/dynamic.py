"""Dynamic sparse training of one network: which filters to start with, which to exchange when.

The choices are made by the functions of :mod:`mmsw.sparsity.allocate` and
:mod:`mmsw.sparsity.exchange`; this class knows the layers, the order of things and the random
generator. It needs no training framework: mmengine's hook and the tests use it alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .allocate import erk_counts, keep_best, uniform_counts
from .attach import layers_in_scope, mask_of_zeros
from .dynamic_settings import DynamicSettings
from .dynamic_state import DynamicState, check_kept, damaged
from .exchange import drop_and_grow, exchange_rate, num_exchanged, shared_units
from .layer_masks import layer_of, masks, set_masks
from .optimizer_state import reset_state
from .select import keep_largest_number
from .units import kept_units, mask_of_units, unit_norms, unit_sums


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
        self.updates = 0
        self.generator = torch.Generator().manual_seed(settings.seed)

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
            return current, []
        kept, least = self._start_units(gradients)
        return {
            name: mask_of_units(kept[group], self.layers[name].mask, settings.granularity)
            for group, names in self.groups.items()
            for name in names
        }, least

    def _start_units(
        self, gradients: Mapping[str, Tensor] | None
    ) -> tuple[dict[str, Tensor], list[str]]:
        """Units to keep by layer; all paths of a layer share them."""
        settings = self.settings
        if settings.start == 'snip':
            missing = sorted(set(self.layers) - set(gradients or {}))
            if missing:
                raise ValueError(
                    f"start='snip' needs gradients; there are none of {listed(missing)}"
                )
            silent = [name for name in self.layers if not bool(gradients[name].any())]
            if silent:
                raise SparsityError(
                    "start='snip' ranks weights by the gradient of the loss, which is zero in all "
                    f'of {len(silent)} of {len(self.layers)} layers ({listed(silent)}): they take '
                    'no part in the loss, or are multiplied by zero. Leave these layers out of the '
                    "model, freeze them, or choose start='erk' or 'uniform'"
                )
            return keep_best(
                {group: self._saliency(names, gradients) for group, names in self.groups.items()},
                settings.sparsity,
            )
        scores = {
            group: sum(self._importance(name) for name in names)
            for group, names in self.groups.items()
        }
        sizes = {group: len(score) for group, score in scores.items()}
        if settings.start == 'uniform':
            counts = uniform_counts(sizes, settings.sparsity)
        else:
            shapes = {g: self.layers[names[0]].weight.shape for g, names in self.groups.items()}
            counts = erk_counts(shapes, sizes, settings.sparsity)
        least = [group for group, count in counts.items() if count == 1 < sizes[group]]
        return {group: keep_largest_number(scores[group], counts[group]) for group in sizes}, least

    def _saliency(self, names: Sequence[str], gradients: Mapping[str, Tensor]) -> Tensor:
        """|derivative of the loss by a factor on the unit|: what its removal changes, to first
        order; the paths of a layer are removed together."""
        return sum(
            unit_sums(
                self.layers[name].weight.detach().cpu().double() * gradients[name].cpu().double(),
                self.settings.granularity,
            )
            for name in names
        ).abs()

    def _importance(self, name: str) -> Tensor:
        layer = self.layers[name]
        weight = layer.weight.detach().masked_fill(~layer.mask, 0.0)
        return unit_norms(weight, self.settings.granularity)

    def next_masks(
        self, step: int, steps: int, gradients: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], float]:
        """Masks after one more exchange; nothing is set yet, but the generator moves on.

        A layer whose gradients are all zero exchanges nothing: random depth has skipped it, and
        nothing tells which units to grow.

        Args:
            step: Iterations done.
            steps: Iterations over which the share falls from ``prune_rate`` to ``end_rate``.
            gradients: For growth by gradient or momentum: dense ones by layer name.

        Returns:
            Masks by layer name, and the share of the kept units that was exchanged at most.

        Raises:
            SparsityError: If a weight or a gradient that matters is not finite.
        """
        settings = self.settings
        self.updates += 1
        aligned = settings.align_interval and self.updates % settings.align_interval == 0
        rate = exchange_rate(step, steps, settings.prune_rate, settings.end_rate)
        new = {}
        for names in self.groups.values():
            if settings.grow != 'random' and not any(bool(gradients[n].any()) for n in names):
                new.update({name: self.layers[name].mask.clone() for name in names})
                continue
            kept = [kept_units(self.layers[n].mask, settings.granularity) for n in names]
            importance = [self._importance(name) for name in names]
            if aligned and len(names) > 1:
                new.update(self._exchange_shared(names, kept, importance, rate, gradients))
                continue
            for name, units, values in zip(names, kept, importance, strict=True):
                number = num_exchanged(int(units.sum()), len(units), rate)
                growth = self._growth([name], len(units), gradients)
                new[name] = self._mask(name, drop_and_grow(units, values, growth, number))
        return new, rate

    def _exchange_shared(
        self,
        names: Sequence[str],
        kept: Sequence[Tensor],
        importance: Sequence[Tensor],
        rate: float,
        gradients: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        """Give the paths one mask, and exchange the same units in all of them."""
        shared = shared_units(kept, importance)
        common = torch.stack(shared).all(0)
        rest = torch.stack(shared).any(0) & ~common  # of a sum that the paths do not divide
        values = sum(torch.where(k, v, 0.0) for k, v in zip(kept, importance, strict=True))
        growth = self._growth(names, len(common), gradients)
        growth = torch.where(rest, -1.0, growth)
        free = len(common) - int(common.sum()) - int(rest.sum())
        number = min(num_exchanged(int(common.sum()), len(common), rate), free)
        common = drop_and_grow(common, values, growth, number)
        return {
            name: self._mask(name, common | (units & rest))
            for name, units in zip(names, shared, strict=True)
        }

    def _growth(
        self, names: Sequence[str], number: int, gradients: Mapping[str, Tensor] | None
    ) -> Tensor:
        if self.settings.grow == 'random':
            return torch.rand(number, generator=self.generator, dtype=torch.float64)
        return sum(unit_norms(gradients[name], self.settings.granularity) for name in names)

    def _mask(self, name: str, units: Tensor) -> Tensor:
        return mask_of_units(units, self.layers[name].mask, self.settings.granularity)

    def num_kept(self, new: Mapping[str, Tensor] | None = None) -> int:
        """Units that the masks of the network, or the given ones, keep in all."""
        if new is None:
            return sum(self._kept_by_layer().values())
        return sum(int(kept_units(mask, self.settings.granularity).sum()) for mask in new.values())

    def num_units(self) -> int:
        """Units of the network, kept or not."""
        sizes = (layer.weight.shape for layer in self.layers.values())
        return sum(s[0] if self.settings.granularity == 'filter' else s.numel() for s in sizes)

    def num_weights(self) -> int:
        """Single weights that the masks of the network keep."""
        return sum(int(layer.mask.sum()) for layer in self.layers.values())

    def num_partial(self) -> int:
        """Filters that are kept in part: pruned in single weights by an earlier training."""
        flat = (layer.mask.flatten(1) for layer in self.layers.values())
        return sum(int((mask.any(1) & ~mask.all(1)).sum()) for mask in flat)

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
            check_kept(state.kept, self._kept_by_layer(), self.settings.granularity)
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
