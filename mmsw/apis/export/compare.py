"""How far results are from each other: logits, classes of pixels, objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmsw.summed import Summed

_PARTNER = 0.5  # least IoU of two boxes of one object


@dataclass(frozen=True)
class OutputError:
    """The largest error of an output.

    Attributes:
        largest: In the unit of the output.
        reference: Largest absolute value that was expected.
    """

    largest: float = 0.0
    reference: float = 0.0

    @property
    def share(self) -> float:
        """Of the largest value; 0 where nothing was expected and nothing came."""
        return self.largest / self.reference if self.reference else self.largest

    def and_also(self, other: OutputError) -> OutputError:
        """The worse of both, beside the larger reference."""
        return OutputError(max(self.largest, other.largest), max(self.reference, other.reference))


@dataclass(frozen=True)
class Changes(Summed):
    """Results that changed, out of so many.

    Attributes:
        total: Pixels, or objects of the reference.
        changed: Pixels of another class; objects without a partner, on either side.
        beyond: Pixels among them whose classes were further apart than the errors that are allowed.
    """

    total: int = 0
    changed: int = 0
    beyond: int = 0

    @property
    def share(self) -> float:
        """Changed ones among all."""
        return self.changed / self.total if self.total else float(self.changed > 0)


def error_of(found: Tensor, expected: Tensor) -> OutputError:
    """Largest difference of two tensors of one shape; infinite where one has no number."""
    if not expected.numel():
        return OutputError()
    difference = (found.double() - expected.double()).abs().max().item()
    largest = expected.double().abs().max().item()
    return OutputError(difference if np.isfinite(difference) else float('inf'), largest)


def changed_pixels(
    found: Tensor, expected: Tensor, logits: Tensor, allowed: float, threshold: float | None
) -> Changes:
    """Compare two maps of classes.

    Args:
        found: ``[1, H, W]``.
        expected: ``[1, H, W]``.
        logits: ``[K, H, W]`` that ``expected`` was made of.
        allowed: Error of a logit, as a share of the largest, that explains a change of classes that
            lie as near as twice that.
        threshold: Of a single channel.
    """
    changed = (found != expected)[0]
    if not changed.any():
        return Changes(changed.numel())
    here = logits[:, changed]
    if threshold is None:
        gap = here.amax(0) - here.gather(0, found[:, changed].long())[0]
    else:
        gap = (here[0] - threshold).abs()
    beyond = int((gap > 2 * allowed * logits.abs().max()).sum())
    return Changes(changed.numel(), int(changed.sum()), beyond)


def partners(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Objects that are the same, as pairs of indices: of ``expected`` and of ``found``.

    Each object of the reference, the best first, takes the nearest box of its class that is left,
    if their IoU is 0.5 or more.

    Args:
        found: ``boxes`` ``[n, 4]`` and ``labels`` ``[n]``.
        expected: Likewise.
    """
    boxes, free = found['boxes'].double(), torch.ones(len(found['boxes']), dtype=torch.bool)
    pairs = []
    for index, (box, label) in enumerate(
        zip(expected['boxes'].double(), expected['labels'], strict=True)
    ):
        fitting = torch.nonzero(free & (found['labels'] == label))[:, 0]
        if not len(fitting):
            continue
        distance = (boxes[fitting] - box).abs().amax(1)
        nearest = int(fitting[distance.argmin()])
        if _iou(boxes[nearest], box) >= _PARTNER:
            free[nearest] = False
            pairs.append((index, nearest))
    return pairs


def object_errors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], least_score: float
) -> tuple[dict[str, OutputError], Changes]:
    """Compare objects of an image.

    Args:
        found: ``boxes``, ``scores``, ``labels``, and maybe ``masks``, each ``[n, ...]``.
        expected: Likewise.
        least_score: Objects below it may come and go, and their errors do not count.

    Returns:
        Errors of boxes, scores and masks of the objects on both sides, and how many are on one
        side alone.
    """
    pairs = partners(found, expected)
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    counts = [
        int((group['scores'] >= least_score).sum())
        - int((group['scores'][chosen] >= least_score).sum())
        for group, chosen in ((expected, mine), (found, theirs))
    ]
    seen = expected['scores'][mine] >= least_score
    errors = {
        name: error_of(found[name][theirs][seen], expected[name][mine][seen])
        for name in ('boxes', 'scores', 'masks')
        if name in expected
    }
    total = int((expected['scores'] >= least_score).sum())
    return errors, Changes(total, sum(counts))


def changed_mask_pixels(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    found_masks: Tensor | None,
    expected_masks: Tensor | None,
    least_score: float,
) -> Changes:
    """Pixels that are in one mask alone, of the objects that are on both sides.

    Args:
        found: ``boxes``, ``scores`` and ``labels``.
        expected: Likewise.
        found_masks: ``[n, H, W]``, bool; ``None`` where there are none.
        expected_masks: Likewise.
        least_score: Of ``expected``; masks of objects below it are not looked at.
    """
    if found_masks is None or expected_masks is None:
        return Changes()
    scores = expected['scores']
    pairs = [pair for pair in partners(found, expected) if scores[pair[0]] >= least_score]
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    one, other = expected_masks[mine], found_masks[theirs]
    return Changes(int((one | other).sum()), int((one ^ other).sum()))


def _iou(one: Tensor, other: Tensor) -> float:
    low, high = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
    common = (high - low).clamp(min=0).prod()
    union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common
    return float(common / union) if union > 0 else float(torch.equal(one, other))
