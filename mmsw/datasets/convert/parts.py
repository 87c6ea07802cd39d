"""Parts of a data set for training, validation and testing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mmsw.errors import UsageError

from .annotated import AnnotatedImage

PARTS = ('train', 'val', 'test')


def part_of(name: str) -> str | None:
    """Which part of a data set a folder or file is for, judging by its name."""
    name = name.lower().removeprefix('instances_')
    if name.startswith('trainval'):
        return None
    return next((part for part in PARTS if name.startswith(part)), None)


def listed_parts(source: Path, kind: str) -> dict[str, str]:
    """From the names of images to their parts, as the lists of Pascal VOC say.

    Args:
        source: Folder; its lists are ``ImageSets/KIND/train.txt`` and so on.
        kind: ``'Main'`` or ``'Segmentation'``.

    Returns:
        Nothing if there are no lists of parts.
    """
    lists = {path.stem: path for path in sorted(source.glob(f'**/ImageSets/{kind}/*.txt'))}
    whole = {} if 'train' in lists else {'trainval': 'train'}
    found = {}
    for name, part in {'train': 'train', 'val': 'val', 'test': 'test', **whole}.items():
        if name in lists:
            lines = lists[name].read_text(encoding='utf-8').splitlines()
            found |= {str(PurePosixPath(line.split()[0])): part for line in lines if line.split()}
    return found


def divide(images: Sequence[AnnotatedImage], shares: Sequence[float] | None, seed: int) -> None:
    """Give every image a part, in place.

    Args:
        images: Those of a source. If some have a part, those without one belong to the training.
        shares: Of training, validation and perhaps testing. None: as the source says.
        seed: For drawing which image is for what.

    Raises:
        UsageError: If the shares are no shares, or the source has parts already.
    """
    if shares is None:
        for image in images:
            image.part = image.part or 'train'
        return
    if not 2 <= len(shares) <= 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        given = ' '.join(f'{share:g}' for share in shares)
        raise UsageError(
            f'--split {given}: expected are two or three shares above 0 that add up to 1, for '
            'instance --split 0.8 0.2'
        )
    already = sorted({image.part for image in images if image.part})
    if already:
        raise UsageError(
            f'the source is divided into {" and ".join(already)} already: leave --split out'
        )
    if len(images) < len(shares):
        raise UsageError(
            f'--split: {len(images)} images cannot be divided into {len(shares)} parts'
        )
    order = sorted(images, key=lambda image: str(image.name))
    random.Random(seed).shuffle(order)
    counts = [max(1, round(share * len(order))) for share in shares[1:]]
    counts = [max(1, len(order) - sum(counts)), *counts]
    start = 0
    for part, count in zip(PARTS, counts, strict=False):
        for image in order[start : start + count]:
            image.part = part
        start += count
