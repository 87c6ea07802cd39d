"""Samples of a batch side by side in one map, so that one matrix product takes all of them.

On the CPU a product for each sample reads the weight once per sample, and fills the registers badly
where a sample has few positions: it takes 1.3 times the time of one for all at 49 positions, and 7
to 27 times at 4. A map ``[B, K, P]`` is therefore laid out as ``[B / S, K, S * P]``, with ``S``
samples together: all of them, or one.
"""

from __future__ import annotations

from torch import Tensor

# From here on a product for each sample is as fast, and needs no copy of the map.
_MANY_POSITIONS = 196


def samples_together(x: Tensor) -> int:
    """How many samples ``S`` of a map ``[B, K, P]`` one product should take."""
    return max(x.shape[0], 1) if x.is_cpu and 0 < x.shape[2] < _MANY_POSITIONS else 1


def join(x: Tensor, together: int) -> Tensor:
    """``[B, K, P]`` as ``[B / S, K, S * P]``, a copy where ``S`` is more than one."""
    return x if together == 1 else x.transpose(0, 1).flatten(1).unsqueeze(0)


def separate(x: Tensor, together: int) -> Tensor:
    """What was joined as ``[B, K, P]``, a copy where ``S`` is more than one."""
    if together == 1:
        return x
    return x[0].unflatten(1, (together, -1)).transpose(0, 1).contiguous()


def rows_by_sample(x: Tensor, together: int) -> Tensor:
    """A joined map with a row for each unit of each sample, ``[B / S, K * S, P]``."""
    return x if together == 1 else x.unflatten(2, (together, -1)).flatten(1, 2)


def map_of(rows: Tensor, together: int) -> Tensor:
    """The joined map of :func:`rows_by_sample`."""
    return rows if together == 1 else rows.unflatten(1, (-1, together)).flatten(2)


def by_row(vector: Tensor, together: int) -> Tensor:
    """A number for each unit, ``[K]``, as one for each row, ``[K * S]``."""
    return vector if together == 1 else vector.repeat_interleave(together)
