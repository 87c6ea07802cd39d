"""How many units grow in which layer, where layers do not just replace what they dropped.

Sparse momentum (Dettmers & Zettlemoyer 2019, arXiv 1907.04840): all layers drop the same share of
what they keep. The number dropped in all is then shared out anew: layer ``i`` grows

    ``share[i] / sum(share) * dropped``

units, rounded by the largest remainder, where ``share[i]`` is the mean momentum or magnitude of
the weights that it keeps, or the number of its non-zero units. What does not fit into a layer is
shared out among the others, in the same proportion. A layer is a whole shift-wise layer, with all
of its paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .allocate import apportion
from .exchange import num_dropped
from .layer_exchange import OwnMasks, SharedMask


def mean_magnitude(values: Sequence[Tensor], masks: Sequence[Tensor]) -> float:
    """Mean absolute value of the weights, or of their momentum, that the paths of a layer keep.

    Args:
        values: Per path, ``[F, ...]``.
        masks: Per path, boolean, of the same shape; True = kept.

    Returns:
        The mean in double precision; 0 if nothing is kept.
    """
    kept = sum(int(mask.sum()) for mask in masks)
    total = sum(
        float(value.detach()[mask].cpu().double().abs().sum())  # some devices have no float64
        for value, mask in zip(values, masks, strict=True)
    )
    return total / kept if kept else 0.0


def redistribute(
    layers: Mapping[str, OwnMasks | SharedMask], rate: float, shares: Mapping[str, float]
) -> dict[str, tuple[list[int], int]]:
    """Units that the layers of a network drop and grow, as many in all.

    Args:
        layers: By name.
        rate: Share of the kept units that each path drops, but never its last one. Where there is
            less room to grow in all layers together, all drop less, in proportion.
        shares: By layer name, not negative: in proportion to which they grow. If all are zero,
            nothing tells the layers apart, and each one's part is what it dropped.

    Returns:
        By layer name: what to drop, see :meth:`mmsw.sparsity.layer_exchange.OwnMasks.dropped`, and
        how many to grow.

    Raises:
        SparsityError: If a share is not finite.
    """
    room = {name: layer.room for name, layer in layers.items()}
    parts = {
        name: layer.dropped(lambda kept, _: num_dropped(kept, rate))
        for name, layer in layers.items()
    }
    wanted, free = sum(_totals(layers, parts).values()), sum(room.values())
    if wanted > free:
        parts = {name: [part * free // wanted for part in own] for name, own in parts.items()}
    dropped = _totals(layers, parts)
    grown = apportion(sum(dropped.values()), shares if any(shares.values()) else dropped, room)
    return {name: (parts[name], grown[name]) for name in layers}


def _totals(
    layers: Mapping[str, OwnMasks | SharedMask], parts: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    return {name: layer.copies * sum(parts[name]) for name, layer in layers.items()}
