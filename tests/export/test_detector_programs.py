"""Detectors as programs: what mmdet finds, in the same order, in every form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runtimes_of_operators import RUNTIMES, exported
from tiny_detectors import build, by_mmdet, tiny_config
from torch import Tensor, nn

from mmsw.deploy.export import Program, program_of
from mmsw.deploy.export.capture import capture

FILES = {
    'retinanet': 'retinanet_sw_t_1x_coco.py',
    'mask': 'mask_rcnn_sw_t_1x_coco.py',
    'cascade': 'cascade_mask_rcnn_sw_t_coco.py',
}
NAMES = ('bboxes', 'scores', 'labels', 'masks')
SIZES = [(130, 200), (193, 129), (256, 160)]
SMALLEST = {'retinanet': 129, 'mask': 65, 'cascade': 65}


@pytest.fixture(scope='module')
def models() -> dict[str, nn.Module]:
    return {kind: build(tiny_config(file)) for kind, file in FILES.items()}


def draw(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))


def assert_same(found: list[Tensor], model: nn.Module, image: Tensor, boxes: float = 1e-2) -> int:
    """Compare with mmdet; gives the number of detections."""
    expected = by_mmdet(model, image)
    tolerances = (boxes, 1e-4, 0, 1e-4)
    assert len(found) == 3 + model.with_mask
    for output, name, most in zip(found, NAMES, tolerances, strict=False):
        target = expected[name]
        assert output.dtype == target.dtype
        assert output.shape == target.shape
        assert torch.allclose(output, target, rtol=0, atol=most), name
    return len(expected)


@pytest.mark.parametrize('format', ['torch', 'onnx'])
@pytest.mark.parametrize('kind', FILES)
@torch.no_grad()
def test_what_mmdet_finds(models: dict[str, nn.Module], kind: str, format: str) -> None:
    model = models[kind]
    program = program_of(model).for_format(format)
    assert (program.task, program.batched) == ('detection', False)
    assert program.outputs == ('boxes', 'scores', 'labels', 'masks')[: 3 + model.with_mask]
    assert program.settings == ({'mask_threshold': 0.5} if model.with_mask else {})
    seen = set()
    for height, width in (*SIZES, (33, 41), (160, 64)):
        image = draw(height, width)
        found = program(image)
        assert assert_same(found, model, image, boxes=2e-4) > 10
        seen |= set(found[2].tolist())
        assert (found[0].amax(0) <= torch.tensor([width, height] * 2)).all()
        assert found[0].amin() >= 0
    assert len(seen) > 1


def open_sizes(program: Program) -> dict[int, torch.export.Dim]:
    sides = (2, 'height'), (3, 'width')
    return {axis: torch.export.Dim(name, min=program.smallest, max=4096) for axis, name in sides}


# Exports take seconds each: what Mask R-CNN shares with the others is always tested.
_SLOW = pytest.mark.slow
EXPORTED = ['mask', *(pytest.param(kind, marks=_SLOW) for kind in ('retinanet', 'cascade'))]


@pytest.mark.parametrize('kind', EXPORTED)
@torch.no_grad()
def test_onnx_of_open_sizes(models: dict[str, nn.Module], kind: str) -> None:
    program = program_of(models[kind]).for_format('onnx')
    assert program.smallest == SMALLEST[kind]
    operators = {'NonMaxSuppression', 'TopK', *(['RoiAlign'] if kind != 'retinanet' else [])}
    file = exported(program, (draw(200, 140),), (open_sizes(program),), operators)
    for size in (*SIZES, (program.smallest, program.smallest)):
        image = draw(*size)
        for run in RUNTIMES.values():
            assert assert_same(run(file, image), models[kind], image) > 10


@torch.no_grad()
def test_sizes_stay_open_in_half_precision(models: dict[str, nn.Module]) -> None:
    program = program_of(models['retinanet']).for_format('onnx').in_precision(torch.float16)
    graph = capture(program, draw(200, 140), dynamic=True, plain=True)
    limits = {(each.lower, each.upper) for each in graph.range_constraints.values()}
    assert (SMALLEST['retinanet'], 16384) in limits
    assert all(each.lower != each.upper for each in graph.range_constraints.values())
    assert [out.dtype for out in graph.module()(draw(160, 193))[:2]] == [torch.float32] * 2


WITHOUT_TOOLBOXES = """
import sys
sys.modules.update(dict.fromkeys(['mmsw', 'mmcv', 'mmengine', 'mmdet', 'torchvision']))
import torch
file, *images = sys.argv[1:]
run = torch.export.load(file).module()
for image in images:
    torch.save(run(torch.load(image)), image + '.out')
"""


@pytest.mark.parametrize('kind', EXPORTED)
@torch.no_grad()
def test_torch_of_open_sizes_needs_torch_alone(
    models: dict[str, nn.Module], kind: str, tmp_path: Path
) -> None:
    program = program_of(models[kind]).for_format('torch')
    sizes = (open_sizes(program),)
    graph = torch.export.export(program.eval(), (draw(200, 140),), dynamic_shapes=sizes)
    assert not [node for node in graph.graph.nodes if 'mmsw' in str(node.target)]
    torch.export.save(graph, tmp_path / 'detector.pt2')
    images = {tmp_path / f'{height}.pt': draw(height, width) for height, width in SIZES}
    for path, image in images.items():
        torch.save(image, path)
    command = [sys.executable, '-c', WITHOUT_TOOLBOXES, tmp_path / 'detector.pt2', *images]
    subprocess.run(command, check=True, cwd=tmp_path, env={'OMP_NUM_THREADS': '1'})
    for path, image in images.items():
        found = torch.load(f'{path}.out')
        assert assert_same(found, models[kind], image) > 10


@pytest.mark.slow
@pytest.mark.parametrize('kind', EXPORTED[:2])
@torch.no_grad()
def test_nothing_found(kind: str) -> None:
    """Of one fixed size; the thresholds are above every score."""
    cfg = tiny_config(FILES[kind])
    (cfg.model.test_cfg if kind == 'retinanet' else cfg.model.test_cfg.rcnn).score_thr = 0.999
    model = build(cfg)
    program, image = program_of(model), draw(64, 96)
    shapes = [(0, 4), (0,), (0,), (0, 28, 28)][: 3 + model.with_mask]
    assert len(by_mmdet(model, image)) == 0
    assert [part.shape for part in program(image)] == shapes
    file = exported(program.for_format('onnx'), (image,), None, {'NonMaxSuppression'})
    for run in RUNTIMES.values():
        assert [part.shape for part in run(file, image)] == shapes
    graph = torch.export.export(program.for_format('torch').eval(), (image,))
    assert [part.shape for part in graph.module()(image)] == shapes


@torch.no_grad()
def test_other_settings_of_mmdet() -> None:
    """Those that the shipped configs do not use."""
    cfg = tiny_config(FILES['mask'])
    model = cfg.model
    model.rpn_head.loss_cls.use_sigmoid = False
    model.data_preprocessor.update(pad_size_divisor=64)
    model.test_cfg.rpn.min_bbox_size = 30
    model.test_cfg.rcnn.update(score_thr=0.2, nms=dict(type='nms', iou_threshold=0.3))
    model.test_cfg.rcnn.nms.class_agnostic = True
    model.roi_head.bbox_head.update(reg_class_agnostic=True)
    model.roi_head.bbox_head.bbox_coder.update(add_ctr_clamp=True, ctr_clamp=8, clip_border=False)
    model.roi_head.mask_head.class_agnostic = True
    model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio = 2
    model.roi_head.mask_roi_extractor.finest_scale = 28
    built = build(cfg)
    for format in ('torch', 'onnx'):
        image = draw(150, 220)
        found = program_of(built).for_format(format)(image)
        assert assert_same(found, built, image, boxes=2e-4) > 5


@torch.no_grad()
def test_boxes_alone_of_faster_rcnn(models: dict[str, nn.Module]) -> None:
    cfg = tiny_config(FILES['mask'])
    cfg.model.type = 'FasterRCNN'
    cfg.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
    del cfg.model.test_cfg.rcnn.mask_thr_binary
    model = build(cfg)
    program, image = program_of(model), draw(100, 150)
    assert program.outputs == ('boxes', 'scores', 'labels')
    assert assert_same(program(image), model, image, boxes=2e-4) > 10


@pytest.mark.parametrize('kind', FILES)
@torch.no_grad()
def test_less_precision_is_for_the_network_alone(models: dict[str, nn.Module], kind: str) -> None:
    """Boxes of 1000 pixels have no exact numbers in bfloat16: they stay float32."""
    program, image = program_of(models[kind]), draw(130, 200)
    reduced = program.in_precision(torch.bfloat16)
    assert {part.dtype for part in models[kind].parameters()} == {torch.float32}
    assert {part.dtype for part in reduced.parameters()} == {torch.bfloat16}
    found, exact = reduced(image), program(image)
    assert [part.dtype for part in found] == [part.dtype for part in exact]
    assert (found[1][:5] - exact[1][:5]).abs().max() < 0.05
    rounded = (found[0] == found[0].bfloat16().float()) | (found[0] % 1 == 0)
    assert rounded.float().mean() < 0.9
