"""How much to keep where: from one sparsity, or one number, for all layers to counts per layer.

``uniform`` gives every layer the same density. ``erk`` (Erdos-Renyi-Kernel; Mocanu et al. 2018,
arXiv 1707.04780, and Evci et al. 2020, arXiv 1911.11134) gives smaller weights a higher one. The
small kernels of shift-wise layers are depthwise, ``[F, 1, N, N]``, so their Erdos-Renyi-Kernel
densities differ little: a term of ``F`` stands above and below the fraction line.

Every layer keeps at least one unit, and all counts together are exactly ``round((1 - sparsity) *
total)``, unless there are more layers than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor, inf, prod

import torch
from torch import Tensor

from mmsw.errors import SparsityError
from mmsw.wording import listed


def check_sparsity(sparsity: float) -> None:
    """Raise ``ValueError`` unless it is in ``[0, 1)``."""
    if not 0 <= sparsity < 1:
        raise ValueError(f'sparsity must be in [0, 1), got {sparsity}')


def num_kept(total: int, sparsity: float, num_layers: int) -> int:
    """Units to keep of ``total`` in ``num_layers`` layers; at least one in each."""
    check_sparsity(sparsity)
    return max(num_layers, total - round(sparsity * total))


def uniform_counts(sizes: Mapping[str, int], sparsity: float) -> dict[str, int]:
    """Units to keep per layer, the same share in all.

    Args:
        sizes: Units by layer name, at least one each.
        sparsity: Share of all units to prune, in ``[0, 1)``.

    Returns:
        Counts by layer name.

    Raises:
        ValueError: If the sparsity is out of range.
    """
    return _counts(dict.fromkeys(sizes, 1.0), sizes, sparsity)


def erk_counts(
    shapes: Mapping[str, Sequence[int]], sizes: Mapping[str, int], sparsity: float
) -> dict[str, int]:
    """Units to keep per layer by Erdos-Renyi-Kernel: density as sum over product of the shape.

    Args:
        shapes: Shape of the weight by layer name, ``(out, in, height, width)``.
        sizes: Units by layer name, at least one each.
        sparsity: Share of all units to prune, in ``[0, 1)``.

    Returns:
        Counts by layer name; layers whose density would exceed 1 are not pruned.

    Raises:
        ValueError: If the sparsity is out of range.
    """
    raw = {name: sum(shapes[name]) / prod(shapes[name]) for name in sizes}
    return _counts(raw, sizes, sparsity)


def _counts(raw: Mapping[str, float], sizes: Mapping[str, int], sparsity: float) -> dict[str, int]:
    """Integers nearest to ``factor * raw * size``, within 1 and size, with the exact sum."""
    total = num_kept(sum(sizes.values()), sparsity, len(sizes))
    weights = {name: raw[name] * size for name, size in sizes.items()}
    return _whole(_shares(total, weights, sizes), sizes, total, least=1)


def apportion(
    total: int, weights: Mapping[str, float], limits: Mapping[str, int]
) -> dict[str, int]:
    """Split a number in proportion to weights, into whole parts that have limits.

    What would exceed a limit is split among the others, in the same proportion. Parts are rounded
    by the largest remainder: down, and one more for those that lose most by it; among equals for
    the earlier ones. Where nothing but weights of zero are left, the rest is split evenly.

    Args:
        total: The number, at most the sum of the limits.
        weights: By name, finite and not negative.
        limits: By the same names, the most that a part can be; not negative.

    Returns:
        Parts by name, in the order of the limits; their sum is exactly ``total``.

    Raises:
        ValueError: If there is no such split, or a weight is negative or not finite.
    """
    odd = [name for name in limits if not 0 <= weights[name] < inf]
    if odd:
        raise SparsityError(
            'only finite numbers that are not negative can be shared out by; those of '
            f'{listed(odd)} are not'
        )
    if not 0 <= total <= sum(limits.values()):
        raise ValueError(f'cannot split {total} into parts of at most {sum(limits.values())}')
    exact = {name: Fraction(weights[name]) for name in limits}
    return _whole(_shares(total, exact, limits), limits, total, least=0)


def _shares(
    total: int, weights: Mapping[str, float | Fraction], limits: Mapping[str, int]
) -> dict[str, float | Fraction]:
    """Parts in proportion to the weights, none above its limit, not yet whole."""
    full: set[str] = set()
    while True:
        rest = total - sum(limits[name] for name in full)
        weight = sum(weights[name] for name in limits if name not in full)
        factor = rest / weight if weight else 0.0
        more = {
            name
            for name, limit in limits.items()
            if name not in full and factor * weights[name] > limit * (1 + 1e-12)
        }
        if not more:
            break
        full |= more
    return {
        name: float(limit) if name in full else factor * weights[name]
        for name, limit in limits.items()
    }


def _whole(
    shares: Mapping[str, float | Fraction], limits: Mapping[str, int], total: int, least: int
) -> dict[str, int]:
    """Shares by the largest remainder, between ``least`` and the limit each."""
    counts = {name: min(limit, max(least, floor(shares[name]))) for name, limit in limits.items()}
    order = sorted(limits, key=lambda name: shares[name] - floor(shares[name]), reverse=True)
    while (missing := total - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        for name in order if step > 0 else reversed(order):
            if missing and least <= counts[name] + step <= limits[name]:
                counts[name] += step
                missing -= step
    return counts


def keep_best(scores: Mapping[str, Tensor], sparsity: float) -> tuple[dict[str, Tensor], list[str]]:
    """Units with the largest scores over all layers together, at least one per layer.

    Among equal scores those of earlier layers and lower index are kept.

    Args:
        scores: By layer name, ``[n]``, finite.
        sparsity: Share of all units to prune, in ``[0, 1)``.

    Returns:
        By layer name, boolean ``[n]``, True = keep; and the names of the layers that would have
        lost everything: their best unit is kept instead of a better one elsewhere.

    Raises:
        ValueError: If the sparsity is out of range or a score is not finite.
    """
    flat = torch.cat(list(scores.values()))
    if not bool(torch.isfinite(flat).all()):
        bad = [name for name, score in scores.items() if not bool(torch.isfinite(score).all())]
        raise SparsityError(f'scores must be finite; those of {listed(bad)} are not')
    number = num_kept(len(flat), sparsity, len(scores))
    order = torch.sort(flat, descending=True, stable=True).indices
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[order[:number]] = True
    saved = []
    for name, part in zip(scores, kept.split([len(s) for s in scores.values()]), strict=True):
        if not part.any():
            part[int(scores[name].argmax())] = True  # a view: writes into ``kept``
            saved.append(name)
    if saved:
        _drop_surplus(kept, order, int(kept.sum()) - number, [len(s) for s in scores.values()])
    return dict(zip(scores, kept.split([len(s) for s in scores.values()]), strict=True)), saved


def _drop_surplus(kept: Tensor, order: Tensor, surplus: int, sizes: list[int]) -> None:
    """Drop the worst units that are kept, but never the last one of a layer."""
    layer = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    left = torch.bincount(layer[kept], minlength=len(sizes)).tolist()
    for unit in reversed(order.tolist()):
        if surplus == 0:
            return
        if kept[unit] and left[layer[unit]] > 1:
            kept[unit] = False
            left[layer[unit]] -= 1
            surplus -= 1
