"""What pruning saves, by the kernel that computes a layer: dense, by blocks, 2:4, zero by zero.

All of them compute the same numbers. They differ in which products with zero they leave out. A
layer uses each of its weights equally often, so a kernel's multiply-adds are those of the dense
layer times the share of the weights that it multiplies by. ``docs/complexity.md`` has the rules.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import fields, replace

from torch import Tensor, nn
from torch.nn import functional

from mmsw.models.backbones.residual_block import ResidualBlock
from mmsw.models.layers import ShiftWiseConv2d

from .count import Complexity, Cost
from .kernel_counts import DEFAULT_BLOCK, KernelCounts, KernelWork
from .operator_work import used_taps
from .parts import part_of

_WITH_PRODUCTS = (nn.modules.conv._ConvNd, nn.Linear)


def kernel_work(
    model: nn.Module,
    counts: Complexity,
    block: tuple[int, int] = DEFAULT_BLOCK,
    scope: Container[str] | None = None,
) -> KernelCounts:
    """Work out what is left of the multiply-adds of a network, kernel by kernel.

    A weight is pruned if its mask says so, or if it is exactly zero.

    Args:
        model: The network that was counted.
        counts: What :func:`mmsw.analysis.complexity.complexity` counted.
        block: Filters and consecutive inputs of a block, for the kernel that skips blocks.
        scope: Names of weights (``'backbone.conv1.weight'``) whose zeros count; ``None``: all.

    Returns:
        The counts.

    Raises:
        ValueError: If a side of the block is less than 1.
    """
    if min(block) < 1:
        raise ValueError(f'a block has at least one row and one column, got {tuple(block)}')
    work: dict[str, KernelWork] = {}
    elsewhere = []
    for name, module in model.named_modules():
        cost = counts.modules.get(name, Cost())
        counted = scope is None or f'{name}.weight' in scope
        kept = kept_weights(module) if counted else None
        if isinstance(module, (ShiftWiseConv2d, ResidualBlock)):
            if cost.macs_dense:
                work[name] = _operator_work(module, cost)
        elif kept is None:
            if cost.macs_dense:
                work[name] = KernelWork(*[cost.macs_dense] * 5)
        elif cost.macs_dense:
            weights = _weights_of(module, kept, block)
            work[name] = _times(weights, cost.macs_dense // kept.numel())
        elif part_of(name) not in counts.not_run and not bool(kept.all()):
            elsewhere.append(name)
    return KernelCounts(tuple(block), work, tuple(elsewhere))


def kept_weights(module: nn.Module) -> Tensor | None:
    """Where the weight of a convolution or linear layer is not pruned; ``None`` of other modules.

    Args:
        module: Any module.

    Returns:
        Boolean, of the shape of the weight.
    """
    if not isinstance(module, _WITH_PRODUCTS) and not hasattr(module, 'deform_groups'):
        return None
    kept = module.weight.detach() != 0
    mask = getattr(module, 'mask', None)
    masked = isinstance(mask, Tensor) and mask.shape == kept.shape
    return kept & mask if masked else kept


def computed_weights(
    kept: Tensor, groups: int = 1, block: tuple[int, int] = DEFAULT_BLOCK
) -> KernelWork:
    """How many weights of a layer each kernel multiplies by.

    Args:
        kept: Which weights are not pruned, boolean ``[F, C, ...]``.
        groups: Of the layer; ``F`` is a multiple of it.
        block: Filters and consecutive inputs of a block; those at the edges of a group are smaller.

    Returns:
        Numbers of weights.
    """
    grouped = kept.reshape(groups, kept.shape[0] // groups, kept.shape[1], -1)
    used = grouped.any(3)
    taps = grouped.shape[3]
    halved = kept.numel() // 2 if groups == 1 and is_two_four(kept) else kept.numel()
    return KernelWork(
        dense=kept.numel(),
        cut=int((used.any(2).sum(1) * used.any(1).sum(1)).sum()) * taps,
        blocks=_in_blocks(grouped.flatten(2), *block),
        two_four=halved,
        single=int(kept.sum()),
    )


def is_two_four(kept: Tensor) -> bool:
    """Whether at most two of each four weights that follow each other are kept.

    They follow each other in the rows of the matrix ``[F, C * ...]``, as PyTorch's semi-structured
    layers have them, or along the input channels of each tap, as TensorRT has those of
    convolutions.

    Args:
        kept: Which weights are not pruned, boolean ``[F, C, ...]``.
    """
    along_channels = kept.flatten(2).transpose(1, 2) if kept.ndim > 2 else kept
    return _two_of_four(kept.flatten(1)) or _two_of_four(along_channels)


def _two_of_four(kept: Tensor) -> bool:
    if kept.shape[-1] % 4:
        return False
    return bool((kept.reshape(*kept.shape[:-1], -1, 4).sum(-1) <= 2).all())


def _in_blocks(kept: Tensor, rows: int, columns: int) -> int:
    """Weights in blocks that are not all zero, of matrices ``[groups, F, N]``."""
    height, width = kept.shape[1:]
    exist = kept.new_ones(1, height, width)
    padding = (0, -width % columns, 0, -height % rows)
    tiled = [
        functional.pad(part, padding).unfold(1, rows, rows).unfold(2, columns, columns).flatten(3)
        for part in (kept, exist)
    ]
    return int((tiled[0].any(3) * tiled[1].sum(3)).sum())


def _weights_of(module: nn.Module, kept: Tensor, block: tuple[int, int]) -> KernelWork:
    """Of a layer; a transposed convolution has its inputs first, which no 2:4 kernel takes."""
    weights = computed_weights(kept, getattr(module, 'groups', 1), block)
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    return replace(weights, two_four=weights.dense) if transposed else weights


def _times(weights: KernelWork, uses: int) -> KernelWork:
    return KernelWork(*(getattr(weights, each.name) * uses for each in fields(KernelWork)))


def _operator_work(module: ShiftWiseConv2d | ResidualBlock, cost: Cost) -> KernelWork:
    """Of the cross kernel, whose empty blocks a backend of this project skips, in its own sizes."""
    dense, used = cost.macs_dense, cost.macs_used
    single = used
    if isinstance(module, ShiftWiseConv2d) and not module.deployed:
        taps, filled = used_taps(module)
        single = used * filled // taps if taps else 0
    return KernelWork(dense, dense, used, dense, single)
