"""Small segmentors of every kind, folded, and what their files are compared with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from tiny_segmentors import metadata_of
from torch import Tensor, nn

import mmsw.models  # noqa: F401
from mmsw.deploy import fold_model
from mmsw.deploy.export import program_of
from mmsw.deploy.export.writers import write_program

CLASSES = 4
_DIMS = [8, 12, 16, 16]
_ARCH = dict(arch=dict(depths=[1, 1, 1, 1], dims=_DIMS), big_kernels=(13, 9, 7, 5))
BACKBONES = {
    'v1': dict(type='ShiftWiseNet', version='v1', layer_scale_init_value=1.0, **_ARCH),
    'v2': dict(type='ShiftWiseNet', version='v2', layer_scale_init_value=1.0, **_ARCH),
    'slak': dict(type='SLaK', width_factor=1.0, layer_scale_init_value=1.0, **_ARCH),
    'resnet': dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
}
_NORM = dict(type='BN')
HEADS = {
    'uper': dict(type='UPerHead', pool_scales=(1, 2, 3, 6), in_index=[0, 1, 2, 3]),
    'psp': dict(type='PSPHead', pool_scales=(1, 2, 3, 6), in_index=3),
    'fcn': dict(type='FCNHead', in_index=[1, 3], input_transform='resize_concat', num_convs=1),
    'fpn': dict(type='FPNHead', in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32]),
    'segformer': dict(type='SegformerHead', in_index=[0, 1, 2, 3]),
}


@cache
def segmentor(backbone: str, head: str = 'uper', align: bool = False, classes: int = CLASSES):
    """A folded segmentor with statistics of its own, in evaluation mode."""
    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    dims = [8, 16, 32, 64] if backbone == 'resnet' else _DIMS
    options = dict(HEADS[head])
    index = options['in_index']
    options['in_channels'] = [dims[i] for i in index] if isinstance(index, list) else dims[index]
    if classes == 1:
        options.update(out_channels=1, threshold=0.4)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(
            dict(
                type='EncoderDecoder',
                backbone=BACKBONES[backbone],
                decode_head=dict(
                    **options,
                    channels=8,
                    num_classes=max(classes, 2),
                    norm_cfg=_NORM,
                    align_corners=align,
                    init_cfg=dict(type='Normal', std=0.3, override=dict(name='conv_seg')),
                ),
                test_cfg=dict(mode='whole'),
            )
        )
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.5, 1.5)
    fold_model(model)
    return model


def error(found: Tensor, target: Tensor) -> float:
    """Largest difference over the largest value."""
    return ((found - target).abs().max() / target.abs().max()).item()


def write(model: nn.Module, path: Path, format: str, precision: str = 'float32') -> Path:
    """Write a file for images of any size."""
    if format != 'torch':
        for name in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
            pytest.importorskip(name, reason=f'{name}: absent; files of {format} need it')
    program = program_of(model)
    write_program(
        program,
        path,
        format=format,
        example=torch.randn(2, 3, 64, 96),
        dynamic=True,
        precision=precision,
        metadata=metadata_of(program, precision=precision),
    )
    return path
