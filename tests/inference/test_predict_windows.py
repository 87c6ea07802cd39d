"""Large images in windows: no seams between classes, no object twice or in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from mmsw.apis.predict.class_windows import blended_row, segment_in_windows
from mmsw.apis.predict.object_windows import detect_in_windows
from mmsw.apis.predict.outcome import Objects, cut_out
from mmsw.apis.predict.windows import spans


@pytest.mark.parametrize('length', [1, 10, 31, 64, 65, 100, 131, 1000])
@pytest.mark.parametrize(('window', 'overlap'), [(64, 0.25), (64, 0.5), (33, 0.0), (40, 0.3)])
def test_shares_add_up_to_one(length: int, window: int, overlap: float) -> None:
    found = spans(length, window, overlap)
    total = np.zeros(length)
    for span in found:
        assert 0 <= span.start <= span.begin <= span.own_begin <= span.own_end <= span.end
        assert span.end <= span.stop <= length
        assert span.stop - span.start == min(window, length)
        total[span.begin : span.end] += span.share()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for left, right in pairwise(found):
        assert left.stop - right.start >= int(overlap * window) - 1
        assert left.own_end <= right.own_begin


def pointwise(crops: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """A network that sees single pixels: windows cannot change what it says."""
    for crop in crops:
        value = torch.from_numpy(crop.astype(np.float32)) / 255
        yield torch.stack([value, 1 - value, (2 * value - 1).abs()])


@pytest.mark.parametrize('shape', [(150, 211), (64, 64), (40, 300), (30, 20)])
def test_what_sees_pixels_sees_the_same_in_windows(shape: tuple[int, int]) -> None:
    image = np.random.randint(0, 256, shape, dtype=np.uint8)
    (logits,) = pointwise([image])
    for overlap in (0.0, 0.25, 0.5):
        found = segment_in_windows(image, (64, 48), overlap, pointwise)
        assert found.labels.dtype == np.uint8
        same = found.labels == logits.argmax(0).numpy()
        assert same.mean() > 0.999  # ties, up to rounding


def test_one_channel_is_compared_with_a_threshold() -> None:
    image = np.random.randint(0, 256, (70, 90), dtype=np.uint8)
    one = lambda crops: (torch.from_numpy(crop / 255)[None] for crop in crops)  # noqa: E731
    found = segment_in_windows(image, (32, 32), 0.25, one, threshold=0.3)
    assert ((found.labels == 1) == (image / 255 > 0.3)).mean() > 0.999


def test_windows_blend_without_a_seam() -> None:
    """Windows say 0 and 1 by turns: the mixture changes by small steps alone."""
    columns = spans(160, 64, 0.5)
    said = (torch.full((1, 64, 64), float(number % 2)) for number in range(len(columns)))
    parts = [part[0, 0] for _, part in blended_row(spans(64, 64, 0.5)[0], columns, said)]
    profile = torch.cat(parts)
    assert profile.shape == (160,)
    assert profile.min() < 0.01
    assert profile.max() > 0.99
    assert profile.diff().abs().max() < 0.08


def test_little_is_held_at_a_time() -> None:
    """Of a tall image as much as of a flat one: the overlap of a row of windows."""
    sizes: list[int] = []
    zeros = Tensor.new_zeros

    def counted(self: Tensor, *shape: int) -> Tensor:
        sizes.append(int(np.prod(shape)))
        return zeros(self, *shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, 'new_zeros', counted)
        segment_in_windows(np.zeros((1000, 200), np.uint8), (64, 64), 0.25, pointwise)
    assert len(sizes) == 1
    assert sizes[0] <= 3 * 32 * 200


class Scene:
    """Boxes of truth; a detector that sees of them what lies in a window."""

    def __init__(self, boxes: list, labels: list[int] | None = None, masks: bool = True) -> None:
        self.boxes = np.array(boxes, np.float32)
        self.labels = np.array(labels or [0] * len(boxes))
        self.masks = masks
        rows, columns = np.mgrid[:300, :400]
        self.image = np.stack([rows, columns], 2).astype(np.int32)  # pixels know where they are

    def look(self, crops: Iterable[np.ndarray]) -> Iterator[Objects]:
        for crop in crops:
            height, width = crop.shape[:2]
            y, x = crop[0, 0]
            shifted = self.boxes - [x, y, x, y]
            seen = np.clip(shifted, 0, [width, height, width, height]).astype(np.float32)
            sides = seen[:, 2:] - seen[:, :2]
            there = np.flatnonzero((sides > 3).all(1))
            share = sides.prod(1) / (self.boxes[:, 2:] - self.boxes[:, :2]).prod(1)
            masks = None
            if self.masks:
                masks = tuple(self._mask(seen[index], height, width) for index in there)
            scores = (0.5 + 0.4 * share[there]).astype(np.float32)
            yield Objects(height, width, seen[there], scores, self.labels[there], masks, 0.1)

    @staticmethod
    def _mask(box: np.ndarray, height: int, width: int):
        pixels = np.zeros((height, width), bool)
        x1, y1, x2, y2 = box.astype(int)
        pixels[y1:y2, x1:x2] = True
        return cut_out(pixels)

    def found(self, overlap: float = 0.3) -> Objects:
        return detect_in_windows(self.image, (128, 128), overlap, self.look)


def in_order(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.lexsort(boxes.T[::-1])]


@pytest.mark.parametrize('masks', [True, False])
def test_objects_are_found_once_and_whole(masks: bool) -> None:
    """Small ones in overlaps and at borders, one larger than a window, one along the picture."""
    truth = [
        [10, 10, 40, 30], [80, 85, 120, 125], [118, 40, 140, 60], [150, 120, 330, 290],
        [5, 200, 399, 215],
    ]  # fmt: skip
    scene = Scene(truth, masks=masks)
    found = scene.found()
    np.testing.assert_allclose(in_order(found.boxes), in_order(scene.boxes), atol=0.01)
    assert (np.diff(found.scores) <= 0).all()
    assert found.score_thr == 0.1
    assert (found.height, found.width) == (300, 400)
    if masks:
        for box, mask in zip(found.boxes.astype(int), found.masks, strict=True):
            assert [mask.x, mask.y] == box[:2].tolist()
            assert mask.pixels.shape == (box[3] - box[1], box[2] - box[0])
            assert mask.pixels.all()
    else:
        assert found.masks is None


def test_neighbours_of_one_class_and_objects_of_others_stay_apart() -> None:
    truth = [[100, 10, 118, 40], [121, 10, 139, 40], [80, 60, 140, 120], [82, 62, 138, 118]]
    scene = Scene(truth, [0, 0, 1, 2])
    found = scene.found()
    np.testing.assert_allclose(in_order(found.boxes), in_order(scene.boxes), atol=0.01)
    assert sorted(found.labels.tolist()) == [0, 0, 1, 2]


def test_nothing_in_the_picture() -> None:
    found = Scene([[500, 500, 600, 600]]).found()
    assert found.boxes.shape == (0, 4)
    assert found.describe(['a']) == '0 objects of score 0.1 or more'
