"""The gradient of the centre of a map with respect to the image, added up over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .area import high_contribution_squares

PARTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    'positive': lambda gradient: gradient.clamp(min=0),
    'absolute': torch.abs,
}


class ReceptiveField(NamedTuple):
    """An effective receptive field.

    Attributes:
        map: Contribution of every pixel to the centre, mean over the images, float64 ``[H, W]``.
        area_ratios: Share of the contribution -> share of the image's area that the smallest square
            around the middle has which holds it, see
            :func:`~mmsw.analysis.receptive_field.high_contribution_squares`.
    """

    map: np.ndarray
    area_ratios: dict[float, float]


def effective_receptive_field(
    net: nn.Module,
    images: Iterable[Tensor],
    output: int | str = -1,
    *,
    part: str = 'positive',
    rectify: bool = True,
    least_map: int = 1,
) -> ReceptiveField:
    """Measure what of an image the centre of a feature map depends on (Luo et al., NeurIPS 2016).

    The defaults are the contribution scores of RepLKNet (arXiv 2203.06717, appendix), which SLaK
    and this method's release take as well: for each image, the outputs at the centre of the map are
    rectified (ReLU) and added over the channels; the gradient of the sum with respect to the image
    is rectified, and added over the colours.

    The centre of a map ``[h, w]`` is its position ``(h // 2, w // 2)``: the middle one of an odd
    side, the second of the two middle ones of an even side.

    The network works in evaluation mode. Gradients of its parameters are not computed. It is left
    as it was.

    Args:
        net: Any network that turns images ``[B, C, H, W]`` into a map ``[B, c, h, w]``, or into a
            tuple, list or dict of maps.
        images: Images ``[C, H, W]`` or batches ``[B, C, H, W]``, prepared as the network wants
            them, all of one height and width. They go to the type and the device of the network's
            parameters.
        output: Which map: index in a tuple or list, or key of a dict; there, an index counts its
            maps in their order. The default is the last one.
        part: What of the gradient counts: its ``'positive'`` part, as published, or its
            ``'absolute'`` value.
        rectify: Apply ReLU to the outputs at the centre. Without it, a map that a layer norm with
            equal weights has normalised over its channels has no field: their sum is constant, and
            the gradient is rounding noise.
        least_map: Refuse a map with a side below this.

    Returns:
        The field, a named tuple ``(map, area_ratios)``.

    Raises:
        ValueError: If the network gives no such map, an image does not fit, the gradient is not
            finite, or it is zero everywhere.
    """
    if part not in PARTS:
        raise ValueError(f'part must be one of {list(PARTS)}, got {part!r}')
    total, number = None, 0
    with _evaluated(net):
        for image in images:
            batch = _as_batch(image, net, number, total)
            gradient = _centre_gradient(net, batch, output, rectify, least_map)
            if not bool(torch.isfinite(gradient).all()):
                raise ValueError(
                    f'the gradient for image {number} is not finite: the network overflows there; '
                    'look at its weights and at how the image is normalised'
                )
            scores = PARTS[part](gradient.double()).sum((0, 1))
            total = scores if total is None else total + scores
            number += len(batch)
    if total is None:
        raise ValueError('no images: a receptive field needs at least one')
    if not bool(total.any()):
        raise ValueError(
            f'the gradient is zero at every pixel of all images ({number}): no channel at the '
            'centre is above zero, or what changes there is behind a layer with zero weights'
        )
    scores = (total / number).cpu().numpy()
    squares = high_contribution_squares(scores)
    return ReceptiveField(scores, {share: square.area_ratio for share, square in squares.items()})


def _centre_gradient(
    net: nn.Module, batch: Tensor, output: int | str, rectify: bool, least_map: int
) -> Tensor:
    """Of the sum at the centre, with respect to the images ``[B, C, H, W]``."""
    with torch.inference_mode(False), torch.enable_grad():
        batch = batch.clone().requires_grad_()
        chosen = _chosen_map(net(batch), output)
        height, width = chosen.shape[2:]
        if min(height, width) < max(least_map, 1):
            sizes = ' x '.join(map(str, batch.shape[2:]))
            raise ValueError(
                f'images of {sizes} give a map of {height} x {width}, at least {least_map} x '
                f'{least_map} is needed: take larger images'
            )
        centre = chosen[:, :, height // 2, width // 2]
        target = (centre.relu() if rectify else centre).sum()
        if not target.requires_grad:
            raise ValueError(
                'the map does not depend on the image in a way that autograd can follow: the '
                'network detaches it, or computes it without gradients'
            )
        (gradient,) = torch.autograd.grad(target, batch, allow_unused=True)
        return torch.zeros_like(batch) if gradient is None else gradient


def _chosen_map(outputs: Any, output: int | str) -> Tensor:
    maps = outputs
    if isinstance(maps, Mapping) and output not in maps and isinstance(output, int):
        maps = list(maps.values())
    try:
        chosen = maps if isinstance(maps, Tensor) else maps[output]
    except (IndexError, KeyError, TypeError) as error:
        found = list(maps) if isinstance(maps, Mapping) else _number_of(maps)
        kind = type(outputs).__name__
        raise ValueError(
            f'the network has no output {output!r}; it gives a {kind} with {found}'
        ) from error
    if not isinstance(chosen, Tensor) or chosen.ndim != 4:
        found = list(chosen.shape) if isinstance(chosen, Tensor) else type(chosen).__name__
        raise ValueError(f'output {output!r} must be a map [B, c, h, w], got {found}')
    return chosen


def _number_of(maps: Any) -> str:
    return f'{len(maps)} entries' if isinstance(maps, Sequence) else 'no entries'


def _as_batch(image: Tensor, net: nn.Module, place: int, total: Tensor | None) -> Tensor:
    """``[B, C, H, W]`` of the network's type and device."""
    if not isinstance(image, Tensor) or image.ndim not in (3, 4) or not image.numel():
        found = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f'image {place} must be a tensor [C, H, W] or [B, C, H, W] with pixels, got {found}'
        )
    batch = image.detach()
    batch = batch if image.ndim == 4 else batch.unsqueeze(0)
    if total is not None and total.shape != batch.shape[2:]:
        raise ValueError(
            f'image {place} has {list(batch.shape[2:])} pixels, those before it '
            f'{list(total.shape)}: a receptive field needs images of one size'
        )
    like = next((p for p in net.parameters() if p.is_floating_point()), None)
    if like is not None:
        return batch.to(like)
    return batch if batch.is_floating_point() else batch.float()


@contextmanager
def _evaluated(net: nn.Module) -> Iterator[None]:
    """Inside, a network evaluates, and no parameter asks for a gradient."""
    modes = [(module, module.training) for module in net.modules()]
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    net.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
            parameter.requires_grad_(True)
