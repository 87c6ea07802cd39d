"""Segmentors of mmseg, so small that a test can export them, and what is written of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmsw.apis import register_toolbox
from mmsw.deploy import fold_model
from mmsw.deploy.export import Program
from mmsw.deploy.export.image_rule import ImageRule
from mmsw.deploy.export.metadata import ExportMetadata

CLASSES = 5
EXAMPLE = (2, 3, 64, 96)
# The traced size, then smaller, odd, and larger ones.
SHAPES = [(1, *EXAMPLE[1:]), (3, 3, 33, 41), (1, 3, 131, 67), (2, 3, 96, 160)]

_NORM = dict(type='BN')
_ARCH = dict(depths=[1, 1, 1, 1], dims=[8, 12, 16, 24])
_KERNELS = dict(big_kernels=(9, 7, 5, 5), norm_cfg=_NORM)
BACKBONES: dict[str, dict[str, Any]] = {
    'v2': dict(type='ShiftWiseNet', version='v2', arch=_ARCH, **_KERNELS),
    'v1': dict(type='ShiftWiseNet', version='v1', arch=_ARCH, **_KERNELS),
    'slak': dict(type='SLaK', arch=_ARCH, width_factor=1.0, **_KERNELS),
    'resnet': dict(
        type='ResNetV1c', depth=18, base_channels=4, stem_channels=4, out_indices=(0, 1, 2, 3),
        norm_cfg=_NORM,
    ),
}  # fmt: skip
_WIDTHS = {'resnet': [4, 8, 16, 32]}


def segmentor(backbone: str, folded: bool = True, test: Any = None, **head: Any) -> nn.Module:
    """An UPerNet, or another head, on a backbone; its batch norms have seen other images.

    Args:
        backbone: Name in ``BACKBONES``.
        folded: Whether it is folded.
        test: Its ``test_cfg``.
        **head: Changes to the head.
    """
    widths = _WIDTHS.get(backbone, _ARCH['dims'])
    pools = dict(pool_scales=(1, 2, 3, 6)) if head.get('type', 'UPerHead') == 'UPerHead' else {}
    decode_head = dict(
        type='UPerHead', in_channels=widths, in_index=[0, 1, 2, 3], channels=8, dropout_ratio=0.0,
        num_classes=CLASSES, norm_cfg=_NORM, align_corners=False, **pools,
    )  # fmt: skip
    cfg = ConfigDict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=BACKBONES[backbone],
        decode_head={**decode_head, **head},
        train_cfg=dict(),
        test_cfg=test or dict(mode='whole'),
    )
    scope = register_toolbox(Config(dict(default_scope='mmseg')))
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(copy.deepcopy(cfg)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    nn.init.normal_(model.decode_head.conv_seg.weight, std=0.3)
    if folded:
        fold_model(model)
    return model


def metadata_of(program: Program, **changes: Any) -> ExportMetadata:
    """Enough for a file that is run."""
    values = dict(
        task=program.task,
        classes=tuple('abcdefgh'[:CLASSES]),
        palette=((0, 0, 0),) * CLASSES,
        image=ImageRule(channels=3),
        settings=program.settings,
        outputs=program.outputs,
        batched=program.batched,
        smallest=program.smallest,
        model=program.description,
    )
    return ExportMetadata(**{**values, **changes})


@torch.no_grad()
def by_mmseg(model: nn.Module, image: Tensor) -> Tensor:
    """Logits of mmseg at the size of the image, before ``postprocess_result``."""
    return model.encode_decode(image, [dict(img_shape=image.shape[2:])])


def need(*packages: str) -> None:
    """Skip a test where a package is missing."""
    for name in packages:
        kind = 'runtimes' if name == 'openvino' else 'onnx'
        pytest.importorskip(name, reason=f'{kind}: {name} is not installed')
