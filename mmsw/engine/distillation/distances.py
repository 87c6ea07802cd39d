"""How far the maps of a student are from those of its teacher; in float32 whatever they come in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

# What is added to the variance of a channel, as norm layers do: a channel that is constant, because
# pruning emptied it, then has a finite gradient.
_LEAST_VARIANCE = 1e-5
# What the probabilities of a distillation by logits add up to one over: dimensions of flattened
# maps [N, K, H*W].
NORMALISED_OVER = {'space': 2, 'classes': 1}


def divergence(student: Tensor, teacher: Tensor, temperature: float, over: str) -> Tensor:
    """Kullback-Leibler divergence of the teacher's probabilities from the student's.

    ``over='space'`` is channel-wise distillation (arXiv 2011.13256): each class is a distribution
    over the pixels, and the divergence is the mean over classes and images. ``over='classes'``
    (arXiv 1503.02531): each pixel is a distribution over the classes, the mean is over pixels and
    images.

    Args:
        student: Logits ``[N, K, H, W]``.
        teacher: Logits of the same shape.
        temperature: What logits are divided by. The result is multiplied by its square, so that the
            size of the gradients depends little on it.
        over: ``'space'`` or ``'classes'``.

    Returns:
        A scalar, 0 where the two agree up to a constant.
    """
    dim = NORMALISED_OVER[over]
    log_student, log_teacher = (
        F.log_softmax(logits.float().flatten(2) / temperature, dim) for logits in (student, teacher)
    )
    differences = log_teacher.exp() * (log_teacher - log_student)
    return temperature**2 * differences.sum(dim).mean()


def decorrelation(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus Pearson's correlation of two maps, the mean over their channels.

    A channel is normalised to mean 0 and variance 1 over the batch and the pixels, so that neither
    its scale nor its offset counts (arXiv 2207.02039).

    Args:
        student: Features ``[N, C, H, W]``.
        teacher: Features of the same shape.

    Returns:
        A scalar in ``[0, 2]``.
    """
    return 1 - (_normalised(student) * _normalised(teacher)).mean()


def _normalised(maps: Tensor) -> Tensor:
    """``[C, N*H*W]``, each row with mean 0 and variance 1."""
    rows = maps.float().transpose(0, 1).flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    return centred * (variance + _LEAST_VARIANCE).rsqrt()


def resized(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Maps of another height and width, bilinear; unchanged where they have that size.

    Args:
        maps: ``[N, C, H, W]``.
        size: ``(height, width)``.
        align_corners: As :func:`torch.nn.functional.interpolate` has it.
    """
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps.float(), size, mode='bilinear', align_corners=align_corners)
