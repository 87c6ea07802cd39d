"""Filling the first convolution from a file for images with another number of channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmsw.errors import CheckpointError

INPUT_WEIGHTS = ('mean', 'repeat')
_LAYER = 'downsample_layers.0.0'
_WEIGHT, _MASK = f'{_LAYER}.weight', f'{_LAYER}.mask'


def fit_stem(
    state: dict[str, Tensor], own: Mapping[str, Tensor], input_weights: str | None, source: str
) -> None:
    """Make the first convolution of a state dict one for the network's number of channels.

    The weight is scaled by the file's number of channels over the network's, so that an image whose
    channels are all equal gives what it gave before (with ``'repeat'``: if the network's number is
    a multiple of the file's).

    Args:
        state: State dict of the file, without prefix; changed in place.
        own: State dict of the network.
        input_weights: ``'mean'``: every channel gets the mean over the file's channels;
            ``'repeat'``: the file's channels in turn (R, G, B, R, ...); ``None``: refuse.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: If the numbers differ and ``input_weights`` does not say what to do, or it
            is something else.
    """
    if input_weights not in (None, *INPUT_WEIGHTS):
        raise CheckpointError(
            f"input_weights must be 'mean', 'repeat' or None, got {input_weights!r}"
        )
    weight, wanted = state.get(_WEIGHT), own[_WEIGHT].shape[1]
    if weight is None or weight.ndim != 4 or weight.shape[1] in (0, wanted):
        return
    found = weight.shape[1]
    if input_weights is None:
        raise CheckpointError(
            f'{source} is for images of {found} channels, the network for in_channels={wanted}: '
            f'{_WEIGHT} {tuple(weight.shape)} instead of {tuple(own[_WEIGHT].shape)}. Say how to '
            "fill it: init_cfg=dict(type='Pretrained', checkpoint=..., input_weights='mean') gives "
            "every channel the mean of the file's, 'repeat' the file's in turn"
        )
    mask = state.get(_MASK)
    if input_weights == 'mean':
        new = weight.float().mean(1, keepdim=True).expand(-1, wanted, -1, -1)
        mask = None if mask is None else mask.any(1, keepdim=True).expand(-1, wanted, -1, -1)
    else:
        turn = torch.arange(wanted, device=weight.device) % found
        new = weight.float().index_select(1, turn)
        mask = None if mask is None else mask.index_select(1, turn)
    state[_WEIGHT] = (new * (found / wanted)).to(weight.dtype)
    if mask is not None:
        state[_MASK] = mask.contiguous()
    print_log(
        f'{source} is for images of {found} channels: {_WEIGHT} is filled for {wanted} '
        f'(input_weights={input_weights!r}, scaled by {found}/{wanted})',
        logger='current',
    )
