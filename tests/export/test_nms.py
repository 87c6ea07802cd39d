"""Non-maximum suppression of exported detectors, against mmcv and a loop in the test."""

import pytest
import torch
from mmcv.ops import nms as mmcv_nms
from runtimes_of_operators import RUNTIMES, exported
from torch import Tensor, nn

from mmsw.deploy.export.nms import nms, plain_nms


def draw(groups: int, number: int, side: float) -> tuple[Tensor, Tensor]:
    """Boxes that overlap much, and scores of which no two are the same."""
    corner = 60 * torch.rand(groups, number, 2)
    boxes = torch.cat([corner, corner + side * (0.2 + torch.rand(groups, number, 2))], -1)
    scores = torch.stack([torch.randperm(number) for _ in range(groups)]).float() / number
    return boxes, scores


def one_by_one(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The definition: take the best that is left, drop what overlaps it."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    left = [i for i in scores.argsort(descending=True, stable=True).tolist() if scores[i] >= 0]
    x1, y1, x2, y2 = boxes.double().unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    while left:
        best, *others = left
        kept[best] = True
        left = []
        for i in others:
            width = min(x2[i], x2[best]) - max(x1[i], x1[best])
            height = min(y2[i], y2[best]) - max(y1[i], y1[best])
            shared = max(width, 0) * max(height, 0)
            if not shared > threshold * (area[i] + area[best] - shared):
                left.append(i)
    return kept


@pytest.mark.parametrize('number', [1, 2, 7, 300, 1500])
@pytest.mark.parametrize('threshold', [0.3, 0.7])
def test_boxes_of_mmcv(number: int, threshold: float) -> None:
    boxes, scores = draw(1, number, 25.0)
    _, places = mmcv_nms(boxes[0], scores[0], threshold)
    assert number < 300 or len(places) < number
    found = plain_nms(boxes, scores, threshold, number)[0]
    assert found.nonzero().flatten().tolist() == sorted(places.tolist())


@pytest.mark.parametrize('form', [nms, plain_nms])
def test_groups_absent_rows_and_boxes_without_area(form) -> None:
    boxes, scores = draw(3, 40, 30.0)
    scores[1, ::3] = -1.0
    scores[2] = -1.0
    boxes[0, 5:8] = boxes[0, 5, :2].repeat(2)  # three times the same point
    kept = form(boxes, scores, 0.4, 40)
    for group in range(3):
        assert torch.equal(kept[group], one_by_one(boxes[group], scores[group], 0.4))
    assert kept[0, 5:8].all()
    assert 0 < kept[1].sum() < 27
    assert not kept[2].any()


def test_of_equal_scores_the_earlier_box_stays() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9], [1, 0, 10, 9], [2, 0, 11, 9], [3, 0, 12, 9]]])
    kept = nms(boxes, torch.full((1, 4), 0.5), 0.6, 4)
    assert kept.tolist() == [[True, False, False, True]]


def test_long_chains() -> None:
    """Each box overlaps the next one alone: whether it stays depends on all before it."""
    start = 6 * torch.arange(101.0)
    boxes = torch.stack([start, start * 0, start + 10, start * 0 + 10], -1).unsqueeze(0)
    kept = nms(boxes, (101 - torch.arange(101.0)).unsqueeze(0) / 101, 0.2, 101)
    assert kept[0].tolist() == [i % 2 == 0 for i in range(101)]


class Suppression(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return nms(boxes, scores, 0.5, 50)


@pytest.fixture(scope='module')
def suppression_file() -> bytes:
    number = torch.export.Dim('number', max=4096)
    sizes = ({1: number}, {1: number})
    return exported(Suppression(), draw(2, 9, 20.0), sizes, {'NonMaxSuppression', 'ScatterND'})


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('number', [0, 1, 9, 120])
def test_standard_operators(suppression_file: bytes, runtime: str, number: int) -> None:
    boxes, scores = draw(2, number, 20.0)
    scores[1, ::2] = -1.0
    boxes[:, 3:6] = 7.0
    (kept,) = RUNTIMES[runtime](suppression_file, boxes, scores)
    expected = plain_nms(boxes, scores, 0.5, 50)
    assert number < 120 or expected.sum(-1).tolist() != [120, 60]  # some were suppressed
    for group in range(2):  # no more than the limit has to be right
        best = torch.where(expected[group], scores[group], -1.0).sort(descending=True)
        places = best.indices[:50][best.values[:50] >= 0]
        assert kept[group].nonzero().flatten().tolist() == places.sort().values.tolist()


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_nothing_present_in_standard_operators(suppression_file: bytes, runtime: str) -> None:
    boxes, scores = draw(2, 5, 20.0)
    (kept,) = RUNTIMES[runtime](suppression_file, boxes, -torch.ones_like(scores))
    assert not kept.any()
