"""What the picture of the demonstration shows of a scene: photograph, truth, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from .picture import Box, PictureRow, Tile, paint, paint_masks

_UNLABELLED = 255
_LEAST_SCORE = 0.5  # of a pictured box


def choose_scenes(classes: Sequence[set[int]], number: int) -> list[int]:
    """Pick scenes one by one: each time the most classes not seen yet, then the most classes.

    Args:
        classes: Classes of every scene.
        number: Scenes to pick, or as many as there are.

    Returns:
        Indices in ascending order.
    """
    seen: set[int] = set()
    left = list(range(len(classes)))
    chosen = []
    while left and len(chosen) < number:
        best = max(left, key=lambda i: (len(classes[i] - seen), len(classes[i]), -i))
        left.remove(best)
        chosen.append(best)
        seen |= classes[best]
    return sorted(chosen)


class LabelMaps:
    """Pictures of a segmentation: every pixel in the colour of its class.

    Args:
        dataset: Scenes with their truth.
        number: Scenes to picture; together they show many classes besides the background.
    """

    def __init__(self, dataset: BaseDataset, number: int) -> None:
        self.classes, self.palette = dataset.metainfo['classes'], dataset.metainfo['palette']
        self._colours = np.asarray(self.palette, float)
        truths = [
            dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()
            for index in range(len(dataset))
        ]
        found = [set(np.unique(truth).tolist()) - {_UNLABELLED, 0} for truth in truths]
        self.chosen = choose_scenes(found, number)
        self._truths = [truths[index] for index in self.chosen]
        self._photos = [_photo(dataset, index) for index in self.chosen]

    def scenes(self) -> list[PictureRow]:
        """What is given."""
        pairs = zip(self._photos, self._truths, strict=True)
        return [
            PictureRow('Photograph', [Tile(photo) for photo in self._photos]),
            PictureRow('Truth', [Tile(paint(*pair, self._colours)) for pair in pairs]),
        ]

    def predicted(self, name: str, samples: Sequence[Any]) -> PictureRow:
        """What a network makes of it, with the mIoU of each scene."""
        tiles = []
        for photo, truth, index in zip(self._photos, self._truths, self.chosen, strict=True):
            labels = samples[index].pred_sem_seg.data[0].numpy()
            caption = f'mIoU of this scene: {100 * scene_iou(labels, truth):.1f} %'
            tiles.append(Tile(paint(photo, labels, self._colours), caption))
        return PictureRow(name, tiles)

    @property
    def legend(self) -> list[tuple[str, Sequence[int]]]:
        """All classes, the background too."""
        return list(zip(self.classes, self.palette, strict=True))


class Objects:
    """Pictures of a detection: masks and thin boxes in the colour of their class.

    Args:
        dataset: Scenes with their truth.
        number: Scenes to picture; together they show many classes.
    """

    def __init__(self, dataset: BaseDataset, number: int) -> None:
        self.classes, self.palette = dataset.metainfo['classes'], dataset.metainfo['palette']
        truths = [dataset[index]['data_samples'].gt_instances for index in range(len(dataset))]
        self.chosen = choose_scenes([set(truth.labels.tolist()) for truth in truths], number)
        self._truths = [truths[index] for index in self.chosen]
        self._photos = [_photo(dataset, index) for index in self.chosen]

    def scenes(self) -> list[PictureRow]:
        """What is given, in one row."""
        pairs = zip(self._photos, self._truths, strict=True)
        tiles = [self._tile(photo, truth) for photo, truth in pairs]
        return [PictureRow('Photograph\nwith the truth', tiles)]

    def predicted(self, name: str, samples: Sequence[Any]) -> PictureRow:
        """What a network finds, each box with its score in per cent."""
        tiles = []
        for photo, index in zip(self._photos, self.chosen, strict=True):
            found = samples[index].pred_instances
            found = found[found.scores >= _LEAST_SCORE]
            tiles.append(self._tile(photo, found[found.scores.argsort()]))
        return PictureRow(name, tiles)

    @property
    def legend(self) -> list[tuple[str, Sequence[int]]]:
        """All classes; there is no background."""
        return list(zip(self.classes, self.palette, strict=True))

    def _tile(self, photo: np.ndarray, objects: Any) -> Tile:
        boxes = objects.bboxes
        corners = getattr(boxes, 'tensor', boxes).tolist()
        colours = [self.palette[label] for label in objects.labels.tolist()]
        scores = [f'{100 * score:.0f}' for score in objects.get('scores', [])] or [''] * len(
            corners
        )
        masks = _bitmaps(objects.get('masks'), photo.shape[:2])
        image = paint_masks(photo, masks, colours) if len(masks) else photo
        found = zip(corners, colours, scores, strict=True)
        return Tile(image, boxes=[Box(tuple(box), colour, text) for box, colour, text in found])


TASKS = {'seg': LabelMaps, 'det': Objects}


def scene_iou(labels: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the classes of one scene's truth or prediction of intersection over union.

    Args:
        labels: Predicted class per pixel.
        truth: Class per pixel; 255 where there is none, which does not count.

    Returns:
        A share.
    """
    known = truth != _UNLABELLED
    labels, truth = labels[known], truth[known]
    shares = [
        ((labels == number) & (truth == number)).sum()
        / ((labels == number) | (truth == number)).sum()
        for number in np.union1d(labels, truth)
    ]
    return float(np.mean(shares)) if shares else 0.0


def _bitmaps(masks: Any, shape: tuple[int, int]) -> np.ndarray:
    """Masks of a data set (bitmaps or polygons) or of a network, as bool ``[n, H, W]``."""
    if masks is None:
        return np.zeros((0, *shape), bool)
    if hasattr(masks, 'to_ndarray'):
        return masks.to_ndarray().astype(bool)
    return np.asarray(masks).astype(bool)


def _photo(dataset: BaseDataset, index: int) -> np.ndarray:
    """RGB ``[H, W, 3]``."""
    return dataset[index]['inputs'].flip(0).permute(1, 2, 0).numpy()
