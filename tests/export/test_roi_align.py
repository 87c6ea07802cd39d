"""RoIAlign of exported detectors, against mmcv's operator."""

import pytest
import torch
from mmcv.ops import RoIAlign
from mmcv.ops import roi_align as mmcv_roi_align
from mmdet.models import SingleRoIExtractor
from runtimes_of_operators import RUNTIMES, exported
from torch import Tensor, nn

from mmsw.deploy.export.detector_operators import PLAIN, STANDARD, Operators
from mmsw.deploy.export.detector_rois import RoIFeatures
from mmsw.deploy.export.roi_align import (
    RoIAlignSettings,
    plain_pyramid_align,
    pyramid_align,
    roi_align,
)

ROUNDING = 2e-6  # of values of a normal distribution


def draw_boxes(number: int, reach: float) -> Tensor:
    """Boxes of all sizes, inside, across the border and outside; points and lines too."""
    corner = (1.6 * torch.rand(number, 2) - 0.3) * reach
    boxes = torch.cat([corner, corner + reach * torch.rand(number, 2) ** 3], -1)
    special = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0.3], [0, 0, 1, 1], [-2, -2, -1, -1]]) * reach
    boxes[: len(special)] = special[:number]
    boxes[1::9, 2] = boxes[1::9, 0]
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), boxes[:, 2:]], -1)


def with_image(boxes: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(boxes[:, :1]), boxes], -1)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('shape', [(13, 17), (1, 1), (2, 40)])
def test_one_map(shape: tuple[int, int], ratio: int, aligned: bool) -> None:
    map_, boxes = torch.randn(1, 3, *shape), draw_boxes(200, 4.0 * max(shape))
    expected = mmcv_roi_align(map_, with_image(boxes), (7, 5), 0.25, ratio, 'avg', aligned)
    found = roi_align(map_, boxes, 7, 5, 0.25, ratio, aligned)
    assert expected.abs().max() > 1
    assert (found - expected).abs().max() < ROUNDING


@pytest.mark.parametrize('align', [pyramid_align, plain_pyramid_align])
@pytest.mark.parametrize('number', [0, 1, 60])
def test_levels_of_a_pyramid(align, number: int) -> None:
    settings = RoIAlignSettings((3, 4), (4, 8, 16), 0, True)
    maps = [torch.randn(1, 5, 24 >> i, 20 >> i) for i in range(3)]
    boxes, levels = draw_boxes(number, 80.0), torch.arange(number) * 7 % 3
    found = align(maps, boxes, levels, settings)
    assert found.shape == (number, 5, 3, 4)
    for i in range(number):
        level = int(levels[i])
        layer = RoIAlign((3, 4), 1 / settings.strides[level], 0)
        expected = layer(maps[level], with_image(boxes[i : i + 1]))[0]
        assert (found[i] - expected).abs().max() < ROUNDING


@pytest.mark.parametrize('operators', [PLAIN, STANDARD], ids=['plain', 'standard'])
def test_levels_by_size_as_mmdet_has_them(operators: Operators) -> None:
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
    extractor = SingleRoIExtractor(layer, 2, [4, 8, 16, 32])
    maps = [torch.randn(1, 2, 160 >> i, 160 >> i) for i in range(4)]
    corner = 300 * torch.rand(120, 2)
    side = 640 * torch.rand(120, 1) ** 2 * (0.5 + torch.rand(120, 2))
    side[:6] = torch.tensor([[112.0], [111.99], [224.0], [223.99], [448.0], [447.99]])
    boxes = torch.cat([corner, corner + side], -1)
    boxes[:6, :2], boxes[:6, 2:] = 0, side[:6]
    expected = extractor(maps, with_image(boxes))
    assert extractor.map_roi_levels(with_image(boxes), 4).unique().tolist() == [0, 1, 2, 3]
    found = RoIFeatures(extractor)(maps, boxes, operators)
    assert (found - expected).abs().max() < ROUNDING


class Cut(nn.Module):
    def __init__(self, aligned: bool, ratio: int) -> None:
        super().__init__()
        self.rule = (7, 5, 0.25, ratio, aligned)

    def forward(self, map_: Tensor, boxes: Tensor) -> Tensor:
        return roi_align(map_, boxes, *self.rule)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_standard_operators(ratio: int, aligned: bool) -> None:
    cut = Cut(aligned, ratio)
    sizes = ({2: torch.export.Dim('h'), 3: torch.export.Dim('w')}, {0: torch.export.Dim('number')})
    model = exported(cut, (torch.randn(1, 3, 13, 17), draw_boxes(9, 60.0)), sizes, {'RoiAlign'})
    for shape, number in (((13, 17), 80), ((2, 30), 50), ((5, 5), 1), ((5, 5), 0)):
        map_, boxes = torch.randn(1, 3, *shape), draw_boxes(number, 4.0 * max(shape))
        expected = mmcv_roi_align(map_, with_image(boxes), (7, 5), 0.25, ratio, 'avg', aligned)
        for run in RUNTIMES.values():
            (found,) = run(model, map_, boxes)
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, rtol=0, atol=ROUNDING)


class PlainCut(nn.Module):
    settings = RoIAlignSettings((7, 7), (4, 8), 0, True)

    def forward(self, fine: Tensor, coarse: Tensor, boxes: Tensor, levels: Tensor) -> Tensor:
        return plain_pyramid_align([fine, coarse], boxes, levels, self.settings)


def test_plain_form_with_open_sizes_in_a_program_of_torch() -> None:
    def inputs(height: int, width: int, number: int) -> tuple[Tensor, ...]:
        fine, coarse = torch.randn(1, 4, height, width), torch.randn(1, 4, height // 2, width // 2)
        return fine, coarse, draw_boxes(number, 4.0 * width), torch.arange(number) % 2

    auto = torch.export.Dim.AUTO
    sizes = ({2: auto, 3: auto}, {2: auto, 3: auto}, {0: auto}, {0: auto})
    program = torch.export.export(PlainCut(), inputs(20, 30, 8), dynamic_shapes=sizes)
    run = program.module()
    for shape in ((20, 30, 8), (44, 12, 31), (20, 30, 2)):
        given = inputs(*shape)
        expected = pyramid_align(given[:2], given[2], given[3], PlainCut.settings)
        assert (run(*given) - expected).abs().max() < ROUNDING
