"""Accuracy of a trained network on each class."""

from __future__ import annotations

from pathlib import Path

import torch

from mmsw.apis import init_model
from mmsw.json_file import read_json, write_json

from ..digests import file_digest
from ..runs import CONFIG, FINAL
from .pictures import TestImages, predicted

_KIND = 'class_scores'
_FILE = 'classes.json'  # in the folder of a run
_UNLABELLED = 255


def class_scores(folder: Path) -> dict[str, float]:
    """Intersection over union of each class, over all pixels of the test images, in per cent.

    Kept beside the weights that they are of.

    Args:
        folder: Of a finished run.
    """
    weights = file_digest(folder / FINAL)
    known = read_json(folder / _FILE, _KIND)
    if known is None or known['weights'] != weights:
        known = {'weights': weights, 'scores': _measure(folder)}
        write_json(folder / _FILE, _KIND, known)
    return known['scores']


def _measure(folder: Path) -> dict[str, float]:
    from mmseg.evaluation import IoUMetric

    images = TestImages(folder)
    model = init_model(folder / CONFIG, folder / FINAL, deploy=True)
    number = len(images.classes)
    both, either = torch.zeros(2, number, dtype=torch.float64)
    for index in range(len(images)):
        pair = predicted(model, images.path(index)), images.truth(index)
        areas = IoUMetric.intersect_and_union(*map(torch.from_numpy, pair), number, _UNLABELLED)
        both += areas[0]
        either += areas[1]
    shares = 100 * both / either.clamp(min=1)
    return dict(zip(images.classes, shares.tolist(), strict=True))
