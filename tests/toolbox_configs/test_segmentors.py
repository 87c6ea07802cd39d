"""The backbone inside mmsegmentation's own configs: loss, backward pass, prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.structures import PixelData
from toolbox_configs import DIMS, SIDE, build, learn_and_predict, shift_wise
from torch import Tensor

mmseg = pytest.importorskip('mmseg', reason='mmseg: not installed')
from mmseg.structures import SegDataSample  # noqa: E402

# By path: the fork's distribution has a name that mmengine's `mmseg::` does not know.
TOOLBOX = Path(mmseg.__file__).parent / '.mim' / 'configs'

# `pretrained` of the base is a ResNet.
ALL = dict(pretrained=None, backbone=shift_wise())
# A map that no head takes would leave its norm without a gradient. So `out_indices` names the maps
# that are used, and `in_index` of a head counts among these.
TWO = dict(pretrained=None, backbone=shift_wise(out_indices=(2, 3)))
TWO_V1 = dict(pretrained=None, backbone=shift_wise('v1', out_indices=(2, 3)))
MAIN = dict(in_channels=DIMS[3], in_index=1, channels=16)
AUXILIARY = dict(in_channels=DIMS[2], in_index=0, channels=8)
MAPS = dict(in_channels=DIMS)

# Config of mmsegmentation -> what the `model` of a user's config says.
CONFIGS = {
    'ann/ann_r50-d8_4xb4-80k_ade20k-512x512.py': dict(
        TWO,
        decode_head=dict(in_channels=DIMS[2:], in_index=[0, 1], channels=16, project_channels=8),
        auxiliary_head=AUXILIARY,
    ),
    'deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py': dict(
        TWO, decode_head=MAIN, auxiliary_head=AUXILIARY
    ),
    'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py': dict(
        pretrained=None,
        backbone=shift_wise(out_indices=(0, 2, 3)),
        decode_head=dict(MAIN, in_index=2, c1_in_channels=DIMS[0], c1_channels=8),
        auxiliary_head=dict(AUXILIARY, in_index=1),
    ),
    'fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py': dict(
        TWO_V1, decode_head=MAIN, auxiliary_head=AUXILIARY
    ),
    'isanet/isanet_r50-d8_4xb4-80k_ade20k-512x512.py': dict(
        TWO, decode_head=dict(MAIN, isa_channels=8), auxiliary_head=AUXILIARY
    ),
    'knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py': dict(
        ALL,
        decode_head=dict(kernel_generate_head=MAPS),
        auxiliary_head=dict(in_channels=DIMS[2], channels=8),
    ),
    'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': dict(
        backbone=shift_wise(), decode_head=MAPS
    ),
    'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py': dict(
        backbone=shift_wise(), decode_head=MAPS
    ),
    # Both heads take maps of one size.
    'ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py': dict(
        pretrained=None, backbone=shift_wise(out_indices=(3,))
    ),
    'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py': dict(ALL, neck=MAPS),
    'pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py': dict(
        TWO, decode_head=MAIN, auxiliary_head=AUXILIARY
    ),
    'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': dict(
        backbone=shift_wise('v1'), decode_head=dict(in_channels=DIMS, channels=16)
    ),
    'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py': dict(ALL, neck=MAPS),
    'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py': dict(
        ALL,
        decode_head=dict(in_channels=DIMS, channels=16),
        auxiliary_head=dict(in_channels=DIMS[2], channels=8),
    ),
}
# Heads in a list are changed in their place by --cfg-options; a config would repeat the list.
OPTIONS = {
    'ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py': {
        f'model.decode_head.{head}.{key}': value
        for head in (0, 1)
        for key, value in dict(in_channels=DIMS[3], in_index=0, channels=16).items()
    },
}


def sample(index: int) -> SegDataSample:
    size = dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE))
    found = SegDataSample(metainfo=dict(size, img_path=f'{index}.jpg'))
    labels = torch.full((1, SIDE, SIDE), 3 + index)
    labels[:, :20, 10:] = 7
    labels[:, 50:] = 255
    found.gt_sem_seg = PixelData(data=labels)
    return found


def images() -> list[Tensor]:
    return [torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8) for _ in range(2)]


@pytest.mark.parametrize('config', CONFIGS)
def test_segmentor(config: str, tmp_path: Path) -> None:
    if config.startswith(('mask2former/', 'maskformer/')):
        pytest.importorskip('mmdet', reason='mmdet: this head of mmsegmentation is made of it')
    model = build(tmp_path, str(TOOLBOX / config), CONFIGS[config], OPTIONS.get(config))
    results = learn_and_predict(model, 'mmseg', images(), [sample(0), sample(1)])
    assert [result.pred_sem_seg.data.shape for result in results] == [(1, SIDE, SIDE)] * 2
