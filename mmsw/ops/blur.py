"""The identity output spread over its neighbourhood: nine small kernels in place of one.

In each repetition a channel draws nine of its small kernels, one for each cell of a 3 x 3 grid
whose cells are N pixels apart. For N = 3 the blocks touch: together they are a 9 x 9 kernel.
Channels of nine small kernels or fewer draw four, for the corners of the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .ghost_channels import SEED
from .map_border import leave_out_wide
from .pattern_tables import num_groups

SIDE = 3  # of the small kernels, and of the grid
_ALL = tuple(range(SIDE**2))
_CORNERS = (0, 2, 6, 8)

Depthwise = Callable[[Tensor, Tensor], Tensor]


def cells_of(groups: int) -> tuple[int, ...]:
    """Cells of the grid, row by row, that a channel of so many small kernels fills."""
    return _CORNERS if groups <= len(_ALL) else _ALL


def spread_of(groups: int) -> tuple[int, ...]:
    """How far the reads are in either direction, in pixels."""
    return tuple(sorted({(cell % SIDE - SIDE // 2) * SIDE for cell in cells_of(groups)}))


def blur_taps(groups: int) -> int:
    """Weights of the kernel of a channel of so many small kernels."""
    return SIDE**2 * len(cells_of(groups))


def check_blur(big_kernel: int, small_kernel: int) -> None:
    """Refuse sizes that have no spread identity.

    Raises:
        ValueError: If N is not 3, or a channel has fewer than four small kernels.
    """
    if small_kernel != SIDE:
        raise ValueError(
            f"identity='blur' needs small_kernel={SIDE}, got {small_kernel}: choose "
            f"small_kernel={SIDE}, or identity='centre'"
        )
    groups = num_groups(big_kernel, small_kernel)
    if groups < len(_CORNERS):
        raise ValueError(
            f"identity='blur' draws {len(_CORNERS)} small kernels of each channel, and "
            f'big_kernel={big_kernel} has {groups}: choose a big_kernel of at least '
            f"{SIDE * (len(_CORNERS) - 1) + 1}, or identity='centre'"
        )


def draw_blur(big_kernel: int, channels: int, num_reps: int, seed: int = SEED) -> Tensor:
    """Draw the small kernels of the cells, from a private generator of numpy's legacy kind.

    Repetition by repetition and channel by channel, without replacement. No published checkpoint
    has them, so their order is this project's own.

    Args:
        big_kernel: Focus length M, of small kernels of side 3.
        channels: Channels C.
        num_reps: Repetitions R.
        seed: Seed of the generator.

    Returns:
        int64 ``[C, R, cells]``, values ``c * nk + g``.
    """
    return _draw(big_kernel, channels, num_reps, seed).clone()


@lru_cache(maxsize=64)
def _draw(big_kernel: int, channels: int, num_reps: int, seed: int) -> Tensor:
    groups = num_groups(big_kernel, SIDE)
    generator, cells = np.random.RandomState(seed), len(cells_of(groups))
    drawn = [
        [generator.choice(groups, cells, replace=False) for _ in range(channels)]
        for _ in range(num_reps)
    ]
    first = np.arange(channels).reshape(1, -1, 1) * groups
    return torch.from_numpy(np.stack(drawn) + first).transpose(0, 1).to(torch.int64).contiguous()


def check_blur_index(index: Tensor, like: Tensor, groups: int) -> None:
    """Refuse what no draw can be.

    Args:
        index: What is to be checked.
        like: An index of the right shape, ``[C, R, cells]``.
        groups: Small kernels per channel.

    Raises:
        ValueError: If it is none.
    """
    if index.dtype not in (torch.int32, torch.int64) or index.shape != like.shape:
        raise ValueError(
            f'the groups of the spread identity must be int64 {list(like.shape)}, got '
            f'{index.dtype} {list(index.shape)}'
        )
    if index.is_meta:
        return
    owner = torch.arange(len(index), device=index.device).view(-1, 1, 1)
    if not bool((index.div(groups, rounding_mode='floor') == owner).all()):
        raise ValueError('the spread identity must name, in row c, groups of channel c only')
    ordered = index.sort(2).values
    if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
        raise ValueError('the spread identity must name a group once per channel and repetition')


def blur_kernel(weight: Tensor, index: Tensor, factor: Tensor | None = None) -> Tensor:
    """Assemble the kernel of the spread identity; differentiable.

    Args:
        weight: Small kernels ``[C * nk, 1, 3, 3]``.
        index: See :func:`draw_blur`.
        factor: Weight of each channel and repetition, ``[C, R]``; ``None`` for 1.

    Returns:
        ``[C, 9, 9]``.
    """
    channels = len(index)
    blocks = weight[index.flatten(), 0].view(*index.shape, SIDE, SIDE)
    if factor is not None:
        blocks = blocks * factor.view(channels, -1, 1, 1, 1)
    blocks = blocks.sum(1)
    if index.shape[2] < len(_ALL):
        empty = torch.zeros_like(blocks[:, 0])
        rows = [blocks[:, _CORNERS.index(q)] if q in _CORNERS else empty for q in _ALL]
        blocks = torch.stack(rows, 1)
    # A read to the left of a position is a block to the right of the centre: the last cell first.
    grid = blocks.flip(1).view(channels, SIDE, SIDE, SIDE, SIDE)
    return grid.transpose(2, 3).reshape(channels, SIDE**2, SIDE**2)


def blur_inside(x: Tensor, kernel: Tensor, depthwise: Depthwise) -> Tensor:
    """The spread identity where the small convolutions keep the size of the map.

    A row of three blocks is an arm along the rows of the map, shifted by whole blocks.

    Args:
        x: ``[B, C, H, W]``.
        kernel: ``[C, 9, 9]``.
        depthwise: Depthwise convolution of a map with ``[C, rows, columns]``, "same" padding.

    Returns:
        ``[B, C, H, W]``.
    """
    out = None
    for row in range(SIDE):
        strip = kernel[:, row * SIDE : (row + 1) * SIDE]
        found = leave_out_wide(depthwise(x, strip), x, strip.transpose(1, 2), SIDE**2)
        # It reads ``row - 1`` blocks below; one block of zeros lies above the map and one below.
        found = F.pad(found, (0, 0, SIDE, SIDE)).narrow(2, row * SIDE, x.shape[2])
        out = found if out is None else out + found
    return out
