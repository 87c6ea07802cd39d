"""How results are compared: objects of low scores may differ."""

import torch

from mmsw.apis.export.compare import Changes, changed_mask_pixels


def test_masks_of_objects_below_the_least_score_do_not_count() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [10.0, 0.0, 14.0, 4.0]])
    objects = dict(boxes=boxes, labels=torch.tensor([0, 0]), scores=torch.tensor([0.9, 0.1]))
    expected = torch.zeros(2, 4, 16, dtype=torch.bool)
    expected[0, :, :4] = expected[1, :, 10:14] = True
    found = expected.clone()
    found[0, 0, 0] = False  # one of 16 pixels
    found[1] = False
    masks = (objects, objects, found, expected)
    assert changed_mask_pixels(*masks, 0.3) == Changes(16, 1)
    assert changed_mask_pixels(*masks, 0.0) == Changes(32, 17)
