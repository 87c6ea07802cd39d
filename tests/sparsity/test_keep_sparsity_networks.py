"""Zeros of real networks of the toolboxes stay zero in training, and the networks learn."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmsw.models import ShiftWiseNet, SLaK
from mmsw.sparsity import attach_masks_of_zeros, lost_zeros, masks

SIZE = (64, 72)
# Layers that these networks compute with although another layer's forward pass calls them, and
# those with other operators than nn.Conv2d and nn.Linear.
DCN = 'backbone.layer2.0.conv2'


def detector(name: str, depth: int = 18, **backbone: object) -> nn.Module:
    mmdet = pytest.importorskip('mmdet', reason='mmdet: absent; detectors come from there')
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules()
    folder = Path(mmdet.__file__).parent / '.mim/configs'
    cfg = Config.fromfile(folder / name).model
    cfg.backbone.update(depth=depth, base_channels=8, init_cfg=None, frozen_stages=-1, **backbone)
    widths = [8 << stage if depth == 18 else 32 << stage for stage in range(4)]
    cfg.neck.update(in_channels=widths, out_channels=16)
    for part in ('bbox_head', 'rpn_head'):
        if part in cfg:
            cfg[part].update(in_channels=16, feat_channels=16)
    if 'roi_head' in cfg:
        roi_head = cfg.roi_head
        roi_head.bbox_roi_extractor.out_channels = 16
        roi_head.bbox_head.update(in_channels=16, fc_out_channels=32)
        if 'mask_head' in roi_head:
            roi_head.mask_roi_extractor.out_channels = 16
            roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1)
    return MODELS.build(cfg)


def objects(model: nn.Module, wrapper: OptimWrapper) -> None:
    """A step of a detector."""
    from mmdet.testing import demo_mm_inputs

    shapes = [[3, *SIZE], [3, *SIZE]]
    with_mask = getattr(getattr(model, 'roi_head', None), 'with_mask', False)
    batch = demo_mm_inputs(2, shapes, num_items=[2, 3], num_classes=4, with_mask=with_mask)
    model.train_step(batch, wrapper)


def segmentor(backbone: dict, channels: list[int]) -> nn.Module:
    pytest.importorskip('mmseg', reason='mmseg: absent; segmentors come from there')
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    register_all_modules()
    head = dict(
        type='UPerHead',
        in_channels=channels,
        in_index=[0, 1, 2, 3],
        channels=16,
        num_classes=5,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss'),
    )
    preprocessor = dict(type='SegDataPreProcessor', size=SIZE)
    return MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=preprocessor,
            backbone=backbone,
            decode_head=head,
            train_cfg={},
            test_cfg=dict(mode='whole'),
        )
    )


def pixels(model: nn.Module, wrapper: OptimWrapper) -> None:
    """A step of a segmentor."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        label = PixelData(data=torch.randint(0, 5, (1, *SIZE)))
        samples.append(SegDataSample(gt_sem_seg=label, metainfo=dict(img_shape=SIZE)))
    images = [torch.randn(3, *SIZE) for _ in range(2)]
    model.train_step(dict(inputs=images, data_samples=samples), wrapper)


def maps(model: nn.Module, wrapper: OptimWrapper) -> None:
    """A step of a backbone."""
    loss = sum(x.square().mean() for x in model(torch.randn(2, 3, *SIZE)))
    wrapper.update_params(loss)


SWIN = dict(
    type='SwinTransformer', embed_dims=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=4
)
MIT = dict(
    type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]
)
ARCH = dict(depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])
NETWORKS = {
    'retinanet': (lambda: detector('retinanet/retinanet_r18_fpn_1x_coco.py'), objects),
    'mask-rcnn': (lambda: detector('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'), objects),
    'deformable': (
        lambda: detector(
            'retinanet/retinanet_r50_fpn_1x_coco.py',
            depth=50,
            dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
            stage_with_dcn=(False, True, True, True),
        ),
        objects,
    ),
    'swin': (lambda: segmentor(SWIN, [8, 16, 32, 64]), pixels),
    'mit': (lambda: segmentor(MIT, [8, 16, 32, 64]), pixels),
    'slak': (lambda: SLaK(ARCH, big_kernels=(7, 7, 5, 5), small_kernel=3, width_factor=1.0), maps),
    'shift-wise': (lambda: ShiftWiseNet(ARCH, big_kernels=(7, 7, 5, 5)), maps),
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    """mmengine tells of every parameter that it initialises; the registries stay as they were."""
    before = DefaultScope.get_current_instance()
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    yield
    MMLogger.get_current_instance().setLevel(logging.INFO)
    if before is None:
        DefaultScope._instance_dict.clear()


@torch.no_grad()
def prune(model: nn.Module) -> tuple[dict[str, Tensor], set[str]]:
    """Zero a third of each weight, another structure in turn; what is initialised to zero stays."""
    kept, initial, generator = {}, set(), torch.Generator().manual_seed(0)
    for number, (name, weight) in enumerate(model.named_parameters()):
        if weight.ndim == 1:
            weight.add_(0.1)  # a filter without weights would be dead behind a ReLU, and never move
        if not name.endswith('.weight') or weight.ndim < 2:
            continue
        layer = name.removesuffix('.weight')
        if not weight.any():
            initial.add(layer)
            continue
        mask = torch.ones_like(weight, dtype=torch.bool)
        if number % 3 == 0:
            mask[::3] = False
        elif number % 3 == 1 and weight.shape[1] > 1:
            mask[:, ::3] = False
        else:
            mask = torch.rand(weight.shape, generator=generator) > 1 / 3
        weight.masked_fill_(~mask, 0.0)
        kept[layer] = mask
    return kept, initial


def trained(model: nn.Module, step: Callable, seed: int = 0) -> None:
    """Two steps with clipped gradients."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    wrapper = OptimWrapper(optimizer, clip_grad=dict(max_norm=1.0))
    model.train()
    for _ in range(2):
        step(model, wrapper)


@pytest.mark.parametrize('name', NETWORKS)
def test_zeros_stay_zero(name: str) -> None:
    build, step = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    if hasattr(model, 'init_weights'):
        model.init_weights()
    kept, initial = prune(model)
    control = copy.deepcopy(model)

    found = attach_masks_of_zeros(model, initial=initial, min_share=0.05)
    assert set(found.kept) == {layer for layer, mask in kept.items() if not mask.all()}
    assert set(found.initial) == initial
    for layer, mask in masks(model).items():
        assert int((kept[layer] & ~mask).sum()) <= 2, 'but for zeros that were drawn by chance'
        assert not (mask & ~kept[layer]).any()
    before = {layer: model.get_submodule(layer).weight.clone() for layer in kept}
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)

    for one in (model, torch.load(file, weights_only=False), copy.deepcopy(model)):
        trained(one, step)
        assert lost_zeros(one.state_dict(), kept) == {}
        moved = [n for n in kept if not torch.equal(one.get_submodule(n).weight, before[n])]
        assert len(moved) >= 0.9 * len(kept), 'it is trained'
    trained(control, step)
    lost = lost_zeros(control.state_dict(), kept)
    assert len(lost) >= 0.9 * len(kept), 'the control'


def test_operators_of_mmcv_are_among_them() -> None:
    model = NETWORKS['deformable'][0]()
    initial = prune(model)[1]
    assert type(model.get_submodule(DCN)).__name__ == 'ModulatedDeformConv2dPack'
    found = attach_masks_of_zeros(model, initial=initial)
    assert DCN in found.kept
    assert f'{DCN}.conv_offset' in found.initial
