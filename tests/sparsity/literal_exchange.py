"""One exchange by its definition, unit by unit in plain loops: what the fast code must equal."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import torch
from torch import Tensor

from mmsw.sparsity import DynamicSparsity


class LiteralLayer:
    """Units of the paths of one layer as lists: which are kept, their norms and sums."""

    def __init__(self, dynamic: DynamicSparsity, names: list[str], aligned: bool) -> None:
        layers = [dynamic.layers[name] for name in names]
        self.weights = [la.weight.detach()[la.mask].double().tolist() for la in layers]
        self.masks = [la.mask for la in layers]
        rows = [_rows(la.weight * la.mask, dynamic.settings.granularity) for la in layers]
        held = [_rows(la.mask, dynamic.settings.granularity) for la in layers]
        self.size = [[sum(w * w for w in row) ** 0.5 for row in path] for path in rows]
        self.sums = [[sum(row) for row in path] for path in rows]
        self.kept = [{u for u, row in enumerate(path) if any(row)} for path in held]
        self.nonzeros = sum(size > 0 for path in self.size for size in path)
        self.number, self.paths = len(rows[0]), len(rows)
        self.shared = aligned and self.paths > 1
        if self.shared:
            self._align()

    def _align(self) -> None:
        """The paths share the units of the largest common norm; a rest goes to the first paths."""
        common = [sum(sizes) for sizes in zip(*self.size, strict=True)]
        somewhere = set().union(*self.kept)
        rank = sorted(range(self.number), key=lambda u: (u not in somewhere, -common[u], u))
        each, rest = divmod(sum(map(len, self.kept)), self.paths)
        self.kept = [set(rank[: each + (path < rest)]) for path in range(self.paths)]
        self.size = [common] * self.paths
        self.sums = [[sum(sums) for sums in zip(*self.sums, strict=True)]] * self.paths

    @property
    def room(self) -> int:
        return sum(self.number - len(kept) for kept in self.kept)

    def least(self) -> set[int]:
        return set.intersection(*self.kept)

    def most_dropped(self, rate: float, within_room: bool) -> list[int]:
        """By path; those of a shared mask drop the same."""
        sets = [self.least()] * self.paths if self.shared else self.kept
        anywhere = len(set().union(*self.kept))
        numbers = []
        for kept in sets:
            number = max(0, min(round(rate * len(kept)), len(kept) - 1))
            free = self.number - (anywhere if self.shared else len(kept))
            numbers.append(min(number, free) if within_room else number)
        return numbers

    def gone(self, path: int, number: int, prune: str) -> set[int]:
        kept = self.least() if self.shared else self.kept[path]
        size, sums = self.size[path], self.sums[path]
        by_size = sorted(kept, key=lambda unit: (size[unit], -unit))
        if prune == 'magnitude':
            return set(by_size[:number])
        idle = [unit for unit in by_size if size[unit] == 0][:number]
        positive = [unit for unit in by_size if size[unit] > 0 and sums[unit] >= 0]
        negative = [unit for unit in by_size if size[unit] > 0 and sums[unit] < 0]
        sizes = {'+': len(positive), '-': len(negative)}
        parts = literal_apportion(number - len(idle), sizes, sizes)
        return {*idle, *positive[: parts['+']], *negative[: parts['-']]}


def literal_apportion(
    total: int, weights: dict[str, float], limits: dict[str, int]
) -> dict[str, int]:
    """Largest remainder with limits, in exact fractions."""
    full: dict[str, int] = {}
    while True:
        left = [name for name in limits if name not in full]
        rest, weight = total - sum(full.values()), sum(Fraction(weights[name]) for name in left)
        share = {n: rest * Fraction(weights[n]) / weight if weight else Fraction(0) for n in left}
        over = [name for name in left if share[name] > limits[name]]
        if not over:
            break
        full.update({name: limits[name] for name in over})
    parts = {name: full.get(name, floor(share.get(name, 0))) for name in limits}
    order = sorted(limits, key=lambda n: -(share[n] - floor(share[n])) if n in share else 0)
    while sum(parts.values()) < total:
        for name in order:
            if sum(parts.values()) < total and parts[name] < limits[name]:
                parts[name] += 1
    return parts


def literal_exchange(
    dynamic: DynamicSparsity,
    rate: float,
    aligned: bool,
    gradients: dict[str, Tensor],
    momentum: dict[str, Tensor],
) -> dict[str, set[int]]:
    """Units that each path keeps after the next exchange; the network is left as it is."""
    settings = dynamic.settings
    layers = {g: LiteralLayer(dynamic, names, aligned) for g, names in dynamic.groups.items()}
    drops = {g: la.most_dropped(rate, not settings.redistribution) for g, la in layers.items()}
    total, room = sum(map(sum, drops.values())), sum(la.room for la in layers.values())
    if settings.redistribution and total > room:
        drops = {group: [n * room // total for n in numbers] for group, numbers in drops.items()}
    grows = {group: sum(numbers) for group, numbers in drops.items()}
    if settings.redistribution:
        shares = {}
        for group, layer in layers.items():
            values = [abs(w) for path in layer.weights for w in path]
            if settings.redistribution == 'momentum':
                named = zip(dynamic.groups[group], layer.masks, strict=True)
                values = [abs(float(m)) for name, mask in named for m in momentum[name][mask]]
            mean = sum(values) / len(values) if values else 0.0
            shares[group] = layer.nonzeros if settings.redistribution == 'nonzeros' else mean
        limits = {group: layer.room for group, layer in layers.items()}
        shares = shares if any(shares.values()) else grows
        grows = literal_apportion(sum(grows.values()), shares, limits)
    generator = torch.Generator()
    generator.set_state(dynamic.generator.get_state())
    kept = {}
    for group, names in dynamic.groups.items():
        layer = layers[group]
        ranks = []
        for names_of_draw in [names] if layer.shared else [[name] for name in names]:
            scores = torch.rand(layer.number, generator=generator, dtype=torch.float64).tolist()
            if settings.grow != 'random':
                rows = [_rows(gradients[name], settings.granularity) for name in names_of_draw]
                norms = [[sum(v * v for v in row) ** 0.5 for row in path] for path in rows]
                scores = [sum(sizes) for sizes in zip(*norms, strict=True)]
            ranks.append(sorted(range(layer.number), key=lambda unit: (-scores[unit], unit)))
        new = [units - layer.gone(p, drops[group][p], settings.prune)
               for p, units in enumerate(layer.kept)]  # fmt: skip
        if layer.shared:
            _grow_shared(new, ranks[0], layer, grows[group])
        elif settings.redistribution:
            for _ in range(grows[group]):
                path = min(
                    (p for p in range(layer.paths) if len(new[p] | layer.kept[p]) < layer.number),
                    key=lambda p: (len(new[p]), p),
                )
                _grow(new[path], ranks[path], layer.kept[path])
        else:
            for path, number in enumerate(drops[group]):
                for _ in range(number):
                    _grow(new[path], ranks[path], layer.kept[path])
        kept.update(zip(names, new, strict=True))
    return kept


def _grow(new: set[int], rank: list[int], old: set[int]) -> None:
    new.add(next(unit for unit in rank if unit not in new and unit not in old))


def _grow_shared(new: list[set[int]], rank: list[int], layer: LiteralLayer, number: int) -> None:
    """New units in all paths at once; the rest unit by unit: first where some paths have it."""
    old = set().union(*layer.kept)
    everywhere, extra = divmod(number, layer.paths)
    for unit in [unit for unit in rank if unit not in old][:everywhere]:
        for path in new:
            path.add(unit)
    for _ in range(extra):
        some = set().union(*new) - set.intersection(*new)
        unit = min(some) if some else next(u for u in rank if u not in old and u not in new[0])
        next(path for path in new if unit not in path).add(unit)


def _rows(values: Tensor, granularity: str) -> list[list[float]]:
    rows = values.detach().double().flatten(1).tolist()
    return rows if granularity == 'filter' else [[value] for row in rows for value in row]
