"""From raw outputs to data samples: pasting, scaling and comparing, by literal formulas."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import FCNMaskHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict

from mmsw.apis.export.compare import changed_pixels, error_of, object_errors, partners
from mmsw.apis.export.finishing import add_objects
from mmsw.deploy.export.pasting import paste_masks


def some_boxes(number: int, height: float, width: float) -> torch.Tensor:
    first = torch.rand(number, 2) * torch.tensor([width, height])
    boxes = torch.cat([first, first + 1 + torch.rand(number, 2) * 40], 1)
    boxes[0] = torch.tensor([3.0, 4.0, 3.0, 9.0])  # of no width
    return boxes


@pytest.mark.parametrize('threshold', [0.5, 0.0, -1])
@pytest.mark.parametrize('size', [(61, 87), (40, 7)])
def test_masks_are_pasted_as_mmdet_pastes_them(size: tuple[int, int], threshold: float) -> None:
    boxes, masks = some_boxes(9, *size), torch.rand(9, 14, 14)
    head = FCNMaskHead(num_classes=1, num_convs=0, class_agnostic=True)
    meta = dict(ori_shape=size, scale_factor=(1.0, 1.0))
    expected = head._predict_by_feat_single(
        masks.logit()[:, None],
        boxes.clone(),
        torch.zeros(9, dtype=torch.long),
        meta,
        ConfigDict(mask_thr_binary=threshold),
        rescale=True,
    )
    pasted = paste_masks(masks.logit().sigmoid(), boxes, size, threshold)
    assert torch.equal(pasted, expected)
    assert pasted.dtype == expected.dtype


def test_a_box_outside_of_the_image_has_an_empty_mask() -> None:
    boxes = torch.tensor([[45.0, 2, 49, 7], [1, 1, 5, 5]])
    pasted = paste_masks(torch.ones(2, 4, 4), boxes, (10, 40), 0.5)
    assert pasted.flatten(1).sum(1).tolist() == [0, 16]


def sample(size: tuple[int, int], scale: tuple[float, float]) -> DetDataSample:
    return DetDataSample(metainfo=dict(ori_shape=size, scale_factor=scale))


def objects(boxes: list, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    number = len(boxes)
    return {
        'boxes': torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        'scores': torch.linspace(0.9, 0.1, number),
        'labels': torch.arange(number) % 2,
        **more,
    }


def test_boxes_go_back_to_the_image() -> None:
    result = sample((100, 50), (2.0, 0.5))
    add_objects(result, objects([[2, 3, 10, 20]]), (50, 100), {})
    assert result.pred_instances.bboxes.tolist() == [[1, 6, 5, 40]]
    assert 'masks' not in result.pred_instances


def test_objects_end_where_the_border_begins() -> None:
    """Those that lie in the border alone go."""
    result = sample((40, 60), (1.0, 1.0))
    found = objects([[50, 30, 90, 35], [61, 0, 80, 9], [0, 0, 5, 5]], masks=torch.ones(3, 4, 4))
    add_objects(result, found, (40, 60), {'mask_threshold': 0.5})
    instances = result.pred_instances
    assert instances.bboxes.tolist() == [[50, 30, 60, 35], [0, 0, 5, 5]]
    assert instances.labels.tolist() == [0, 0]
    assert instances.masks.shape == (2, 40, 60)
    assert instances.masks.flatten(1).sum(1).tolist() == [50, 25]


def test_no_objects() -> None:
    result = sample((40, 60), (1.0, 1.0))
    add_objects(result, objects([], masks=torch.ones(0, 4, 4)), (40, 60), {'mask_threshold': 0.5})
    assert result.pred_instances.bboxes.shape == (0, 4)
    assert result.pred_instances.masks.shape == (0, 40, 60)
    assert result.pred_instances.masks.dtype == torch.bool


def test_a_changed_pixel_counts_beyond_unless_it_was_close() -> None:
    logits = torch.tensor([[[10.0, 5.0, 1.0]], [[0.0, 4.9, -9.0]]])
    expected = logits.argmax(0, keepdim=True)
    for found, changed, beyond in (
        ([0, 0, 0], 0, 0),
        ([0, 1, 0], 1, 0),  # 0.1 apart, and 2 x 0.01 x 10 = 0.2 is allowed
        ([0, 1, 1], 2, 1),
    ):
        changes = changed_pixels(torch.tensor([[found]]), expected, logits, 0.01, None)
        assert (changes.total, changes.changed, changes.beyond) == (3, changed, beyond)
    one = torch.tensor([[[0.39, 0.9]]])
    changes = changed_pixels(torch.ones(1, 1, 2), (one > 0.4).float(), one, 0.01, 0.4)
    assert (changes.changed, changes.beyond) == (1, 0)


def test_objects_find_their_partners() -> None:
    """In any order; one of another class, and one far away, has none."""
    expected = objects([[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 10, 12]])
    found = {name: value[[2, 1, 0]].clone() for name, value in expected.items()}
    found['boxes'][1] += 0.25
    assert partners(found, expected) == [(0, 2), (1, 1), (2, 0)]
    errors, changes = object_errors(found, expected, 0.0)
    assert (errors['boxes'].largest, changes.total, changes.changed) == (0.25, 3, 0)
    found['labels'][1] = 0
    found['boxes'][0] += 500
    found['scores'][0] = 0.3
    errors, changes = object_errors(found, expected, 0.0)
    assert (errors['boxes'].largest, changes.changed) == (0.0, 4)
    assert object_errors(found, expected, 0.4)[1].changed == 2  # the weak ones may come and go


def test_a_number_that_is_none_is_an_infinite_error() -> None:
    assert error_of(torch.tensor([1.0, float('nan')]), torch.ones(2)).largest == float('inf')
    assert error_of(torch.zeros(0), torch.zeros(0)).share == 0
