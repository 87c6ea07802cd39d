"""Comparing an exported file with the model that it was made of, before it gets its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmsw.deploy.export.metadata import ExportMetadata
from mmsw.errors import DataError

from ..image_way import prepare_image
from ..inference import predict_prepared
from .compare import (
    Changes,
    OutputError,
    changed_mask_pixels,
    changed_pixels,
    error_of,
    object_errors,
)
from .exported_model import ExportedModel
from .limits import LIMITS, Limits
from .sample_images import SampleImages

_SHAPES = ((0.7, 1.15), (1.2, 0.6))  # factors of height and width, for other sizes than the first
_LARGEST = 1024  # of a side that a size is made of


@dataclass
class Verification:
    """What comparing a file with its model found.

    Attributes:
        images: Which images, in words.
        are_photographs: Whether they are; results of random images say little.
        sizes: Of the tensors whose outputs were compared, ``B x H x W``.
        errors: Largest error of each output of the program, against the folded model.
        outputs: Objects of raw outputs that are on one side alone; of detectors.
        results: Changed pixels or objects, against the model that is not folded.
        result_errors: Largest errors of boxes and scores in results.
        mask_pixels: Pixels of the masks of the same objects that are in one alone.
        problems: What is beyond the limits; empty if it passed.
    """

    images: str
    are_photographs: bool
    sizes: list[tuple[int, int, int]] = field(default_factory=list)
    errors: dict[str, OutputError] = field(default_factory=dict)
    outputs: Changes = field(default_factory=Changes)
    results: Changes = field(default_factory=Changes)
    result_errors: dict[str, OutputError] = field(default_factory=dict)
    mask_pixels: Changes = field(default_factory=Changes)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the file gives what the model gives, within the limits of its precision."""
        return not self.problems


def verify(
    exported: ExportedModel, eager: ExportedModel, model: nn.Module, samples: SampleImages
) -> Verification:
    """Compare a file with its model.

    Args:
        exported: The file.
        eager: The program that was written, run by torch, with the same metadata.
        model: The model as it was trained, not folded.
        samples: Images to compare results on.

    Raises:
        DataError: If an image cannot be read, or the file fails.
    """
    meta = exported.metadata
    limits = LIMITS[meta.precision]
    found = Verification(samples.source, samples.are_photographs)
    first = prepare_image(exported, samples.images[0]).packed['inputs']
    for batch in batches_of(first, meta):
        _compare_outputs(found, exported, eager, batch, limits)
    # A file for one size fits images into it in its own way, which PyTorch has to take as well.
    reference = model if meta.size is None else eager
    for place, image in enumerate(samples.images):
        _compare_results(found, exported, reference, image, place, limits)
    _judge(found, limits)
    return found


def batches_of(image: Tensor, meta: ExportMetadata) -> list[list[Tensor]]:
    """Batches to compare outputs on: three sizes, odd and not square, or the one of the file.

    Args:
        image: ``[C, H, W]``, prepared; others are made of it.
        meta: Of the file.
    """
    if meta.size is not None:
        return [[image]]
    height, width = (min(side, _LARGEST) for side in image.shape[1:])
    if meta.settings.get('mode') == 'slide':
        height, width = (
            min(side, most)
            for side, most in zip((height, width), meta.settings['crop_size'], strict=True)
        )
    sizes = [(height, width)]
    sizes += [(round(height * high) | 1, round(width * wide) | 1) for high, wide in _SHAPES]
    sizes = [tuple(max(side, meta.smallest) for side in size) for size in sizes]
    batches = [[_resized(image, size)] for size in sizes]
    if meta.batched:
        batches[1].append(batches[1][0].flip(2))
    return batches


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image[None].float(), size, mode='bilinear', align_corners=False)[0]


def _compare_outputs(
    found: Verification,
    exported: ExportedModel,
    eager: ExportedModel,
    batch: Sequence[Tensor],
    limits: Limits,
) -> None:
    given, expected = exported.raw(batch), eager.raw(batch)
    found.sizes.append((len(batch), *(exported.metadata.size or batch[0].shape[1:])))
    if exported.metadata.task == 'detection':
        errors, changes = object_errors(given, expected, limits.least_score)
        found.outputs += changes
    else:
        shapes = [tuple(outputs['logits'].shape) for outputs in (given, expected)]
        if shapes[0] != shapes[1]:
            raise DataError(f'{exported.program.path} gives {shapes[0]}, expected {shapes[1]}')
        errors = {'logits': error_of(given['logits'], expected['logits'])}
    _add(found.errors, errors)


def _compare_results(
    found: Verification,
    exported: ExportedModel,
    reference: nn.Module,
    image: object,
    place: int,
    limits: Limits,
) -> None:
    given, expected = (
        predict_prepared(model, [prepare_image(model, image, place)], keep_logits=True)[0]
        for model in (exported, reference)
    )
    if exported.metadata.task == 'detection':
        objects = [_objects(sample) for sample in (given, expected)]
        errors, changes = object_errors(*objects, limits.least_score)
        _add(found.result_errors, errors)
        found.mask_pixels += changed_mask_pixels(
            *objects,
            *(sample.pred_instances.get('masks') for sample in (given, expected)),
            limits.least_score,
        )
    else:
        logits, settings = expected.seg_logits.data, exported.metadata.settings
        changes = changed_pixels(
            given.pred_sem_seg.data,
            expected.pred_sem_seg.data,
            logits,
            2 * (limits.logits or 1.0),  # the folded model has rounded as well
            settings['threshold'] if len(logits) == 1 else None,
        )
    found.results += changes


def _objects(sample: BaseDataElement) -> dict[str, Tensor]:
    objects = sample.pred_instances
    return {'boxes': objects.bboxes, 'scores': objects.scores, 'labels': objects.labels}


def _add(errors: dict[str, OutputError], more: dict[str, OutputError]) -> None:
    for name, error in more.items():
        errors[name] = error.and_also(errors.get(name, OutputError()))


def _judge(found: Verification, limits: Limits) -> None:
    for name, error in found.errors.items():
        limit, size = limits.of_output(name), error.share if name == 'logits' else error.largest
        if limit is not None and not size <= limit:
            found.problems.append(f'{name}: the largest error is {size:.1e}, allowed is {limit:g}')
    pixels = 'logits' in found.errors
    most, things = (limits.pixels, 'pixels') if pixels else (limits.objects, 'objects')
    for changes, what in ((found.outputs, 'outputs'), (found.results, 'results')):
        if changes.share > most:
            found.problems.append(
                f'{what}: {changes.share:.2%} of the {things} are others, allowed is {most:.2%}'
            )
    if found.mask_pixels.share > limits.mask_pixels:
        found.problems.append(
            f'masks: {found.mask_pixels.share:.2%} of the pixels are not in both masks of an '
            f'object, allowed is {limits.mask_pixels:.2%}'
        )
    if found.results.beyond:
        found.problems.append(
            f'results: {found.results.beyond} pixels changed their class though it was not close'
        )
