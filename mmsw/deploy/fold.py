"""Folding a whole model for inference, and what it saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmsw.analysis.complexity import complexity
from mmsw.checkpoint.folded import is_folded
from mmsw.engine.model_wrapper import unwrapped
from mmsw.errors import UsageError

from .conv_norm import fold_pair, pairs_of

_AUXILIARY = 'auxiliary_head'
_PREDICTING = ('forward', 'predict', '_forward', 'encode_decode', 'inference')


@dataclass(frozen=True)
class FoldReport:
    """What folding a model has changed, and what it left.

    Attributes:
        backbone: Type of the backbone that has a folded form; ``None`` where it has none.
        folded: Names of the convolutions that took up the batch norm behind them.
        dropped: Names of the parts that inference does not use.
        kept: Norms of necks and heads that stay, and auxiliary heads that may be needed, by name,
            with what they are and the reason.
        bytes_before: Bytes of the tensors in its state dict.
        bytes_after: Of the folded model.
        shape: ``(channels, H, W)`` of the image that the multiply-adds are for; ``None`` where they
            were not asked for.
        multiply_adds_before: Of one image.
        multiply_adds_after: Of the folded model.
    """

    backbone: str | None
    folded: tuple[str, ...]
    dropped: tuple[str, ...]
    kept: dict[str, str]
    bytes_before: int
    bytes_after: int
    shape: tuple[int, int, int] | None = None
    multiply_adds_before: int | None = None
    multiply_adds_after: int | None = None

    def __str__(self) -> str:
        lines = [
            f'backbone: {self.backbone or "none that has a folded form"}',
            f'batch norms in the convolution before them: {len(self.folded)}',
            f'dropped: {", ".join(self.dropped) or "nothing"}',
            f'MiB of weights: {self.bytes_before / 2**20:.1f} -> {self.bytes_after / 2**20:.1f}',
        ]
        if self.shape is not None:
            before, after = self.multiply_adds_before / 1e9, self.multiply_adds_after / 1e9
            sizes = ' x '.join(map(str, self.shape))
            lines.append(f'giga-multiply-adds at {sizes}: {before:.3f} -> {after:.3f}')
        lines += [f'stays: {name} ({why})' for name, why in self.kept.items()]
        return '\n'.join(lines)


def fold_model(model: nn.Module, shape: Sequence[int] | None = None) -> FoldReport:
    """Give a whole model the form for inference, in place; predictions stay, up to rounding.

    The backbone gets its folded form, where it has one. Outside of it, convolutions take up the
    batch norm right behind them, and a segmentor loses its auxiliary heads. What cannot be folded
    there stays as it is. The model is in evaluation mode afterwards and cannot be trained. A folded
    model is left as it is.

    Args:
        model: A segmentor of mmseg, a detector of mmdet, or another model whose backbone, if any,
            is ``model.backbone``.
        shape: ``(H, W)`` or ``(channels, H, W)`` of an image: the report then has the multiply-adds
            for it, which takes seconds.

    Returns:
        What was changed, and what was left.

    Raises:
        UsageError: If the backbone has a norm that cannot be folded; nothing is changed.
        ValueError: If the multiply-adds cannot be counted for the shape.
    """
    model = unwrapped(model)
    before = None if shape is None else complexity(model, shape)
    bytes_before = _bytes(model)
    backbone = _fold_backbone(model)
    model.eval()
    dropped, needed = _drop_auxiliary(model)
    pairs, kept = pairs_of(model)
    for pair in pairs:
        fold_pair(model, pair)
    after = None if shape is None else complexity(model, shape)
    return FoldReport(
        backbone=backbone,
        folded=tuple(pair.conv for pair in pairs),
        dropped=dropped,
        kept=needed | kept,
        bytes_before=bytes_before,
        bytes_after=_bytes(model),
        shape=None if before is None else before.shape,
        multiply_adds_before=None if before is None else before.macs_dense,
        multiply_adds_after=None if after is None else after.macs_dense,
    )


def take_folded_form(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Fold the necks and heads that a state dict has folded, before it is loaded.

    Args:
        model: The model, changed in place but for its backbone.
        state: State dict, maybe of a model after :func:`fold_model`.
    """
    pairs, _ = pairs_of(model)
    folded = [
        pair
        for pair in pairs
        if f'{pair.conv}.bias' in state and f'{pair.norm}.running_mean' not in state
    ]
    for pair in folded:
        fold_pair(model, pair)
    whole = any(name.startswith(f'{_AUXILIARY}.') for name in state)
    if not whole and (folded or is_folded(state)):
        _drop_auxiliary(model)


def _fold_backbone(model: nn.Module) -> str | None:
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'switch_to_deploy'):
        return None
    try:
        backbone.switch_to_deploy()
    except TypeError as error:  # a norm that cannot be folded, by name
        raise UsageError(f'the backbone cannot be folded: {error}') from error
    return type(backbone).__name__


def _drop_auxiliary(model: nn.Module) -> tuple[tuple[str, ...], dict[str, str]]:
    """Take the auxiliary heads from a segmentor of mmseg, which asks them in training alone.

    Returns:
        What was dropped, and what may be needed in inference, with the reason.
    """
    if not isinstance(getattr(model, _AUXILIARY, None), nn.Module):
        return (), {}
    methods = [getattr(type(model), name, None) for name in _PREDICTING]
    if not all(method.__module__.startswith('mmseg.') for method in methods if method is not None):
        return (), {_AUXILIARY: 'a segmentor that predicts in its own way may ask it'}
    setattr(model, _AUXILIARY, None)
    return (_AUXILIARY,), {}


def _bytes(model: nn.Module) -> int:
    """Bytes of the tensors that a file of the model holds; a shared one counts once."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(tensor.nbytes for tensor in tensors.values() if isinstance(tensor, Tensor))
