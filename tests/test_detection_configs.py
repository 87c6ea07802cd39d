"""Detection configs: they say what the recipe says, and every mode of their models works."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from mmsw.apis import load_config, register_toolbox

pytest.importorskip('mmdet', reason='mmdet: absent; these configs are for it')

ROOT = Path(__file__).resolve().parents[1]
CASCADE = ROOT / 'configs/cascade_mask_rcnn_sw_t_coco.py'
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*rcnn*.py')
    if '_base_' not in path.parts
    and not path.name.startswith('own_')  # tests/own_data
    and '_r18_' not in path.name  # a network to compare with: tests/demo
) + sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('retinanet*.py')
    if '_base_' not in path.parts and '_r18_' not in path.name  # tests/test_real_sets.py
)
DIMS = [8, 8, 8, 8]
CHANNELS = 8


def reduced(path: str) -> Config:
    """A config with its heads, losses and samplers, but few channels and few boxes."""
    cfg = load_config(ROOT / path)
    model = cfg.model
    model.backbone.update(
        arch=dict(depths=[1, 1, 1, 1], dims=DIMS), big_kernels=(9, 7, 7, 5), init_cfg=None
    )
    if model.backbone.type == 'SLaK':
        model.backbone.width_factor = 1.0  # of DIMS as they are
    model.neck.update(in_channels=DIMS[: len(model.neck.in_channels)], out_channels=CHANNELS)
    for name in ('rpn_head', 'bbox_head'):
        if name in model:
            model[name].update(in_channels=CHANNELS, feat_channels=CHANNELS)
    model.test_cfg.update(nms_pre=50, max_per_img=5)  # of a detector with one stage
    if 'roi_head' in model:
        stages = model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 32
        model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=50)
        model.test_cfg.rpn.update(nms_pre=50, max_per_img=50)
        model.test_cfg.rcnn.max_per_img = 5
        roi = model.roi_head
        roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = CHANNELS
        roi.mask_head.update(in_channels=CHANNELS, conv_out_channels=CHANNELS)
        heads = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
        for head in heads:
            head.update(in_channels=CHANNELS, fc_out_channels=CHANNELS)
            if 'conv_out_channels' in head:
                head.conv_out_channels = CHANNELS
    return cfg


def build(cfg: Config) -> nn.Module:
    init_default_scope(register_toolbox(cfg))
    return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))


def batch(number_of_objects: int, with_masks: bool) -> dict:
    """Two images of 64 x 96 pixels with squares of 20 pixels."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    samples = []
    for _ in range(2):
        corners = torch.arange(number_of_objects).float().view(-1, 1) * 24 + torch.tensor([[2, 4]])
        boxes = torch.cat([corners, corners + 20], 1)
        truth = InstanceData(bboxes=boxes, labels=torch.arange(number_of_objects))
        if with_masks:
            masks = np.zeros((number_of_objects, 64, 96), np.uint8)
            for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
                mask[top:bottom, left:right] = 1
            truth.masks = BitmapMasks(masks, 64, 96)
        sample = DetDataSample(
            metainfo=dict(img_shape=(64, 96), ori_shape=(64, 96), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances, sample.ignored_instances = truth, InstanceData(bboxes=boxes[:0])
        samples.append(sample)
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def total(losses: dict) -> torch.Tensor:
    values = [value for name, value in losses.items() if 'loss' in name]
    return sum(sum(value) if isinstance(value, list) else value for value in values)


def test_all_are_found() -> None:
    assert len(CONFIGS) == 11


@pytest.mark.parametrize('path', CONFIGS)
def test_every_mode_works(path: str) -> None:
    model = build(reduced(path))
    masks = hasattr(model, 'roi_head')
    data = model.data_preprocessor(batch(2, masks), training=True)
    assert data['inputs'].shape == (2, 3, 64, 96)
    loss = total(model(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    # Box heads and mask heads get no gradient from images where every proposal is background.
    assert all(param.grad is not None for param in model.backbone.parameters())
    assert any(param.grad.abs().sum() > 0 for param in model.backbone.stages[3].parameters())

    model.eval()
    with torch.no_grad():
        outputs = model(**data, mode='tensor')
        results = model.test_step(batch(2, masks))
    assert len(outputs) > 0
    for result in results:
        found = result.pred_instances
        assert len(found.bboxes) == len(found.labels) == len(found.scores)
        assert found.bboxes.shape[1:] == (4,)
        if masks:
            assert found.masks.shape == (len(found.bboxes), 64, 96)


@pytest.mark.parametrize('path', CONFIGS)
def test_images_without_objects_train(path: str) -> None:
    model = build(reduced(path))
    data = model.data_preprocessor(batch(0, hasattr(model, 'roi_head')), training=True)
    loss = total(model(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0


def test_cascade_recipe() -> None:
    cfg = load_config(CASCADE)
    assert cfg.default_scope == 'mmdet'
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.version) == ('tiny', 'v2')
    assert (backbone.drop_path_rate, backbone.layer_scale_init_value) == (0.4, 1.0)
    heads = cfg.model.roi_head.bbox_head
    assert len(heads) == 3
    for head in heads:
        assert head.type == 'ConvFCBBoxHead'
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0)
        assert head.reg_decoded_bbox
        assert head.norm_cfg.type == 'SyncBN'
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]

    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert (cfg.optim_wrapper.paramwise_cfg.decay_rate, cfg.train_cfg.max_epochs) == (0.8, 36)
    assert cfg.optim_wrapper.paramwise_cfg.num_layers == 12
    assert cfg.param_scheduler[1].milestones == [27, 33]
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16

    branches = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert [[step.type for step in branch] for branch in branches] == [
        ['RandomChoiceResize'],
        ['RandomChoiceResize', 'RandomCrop', 'RandomChoiceResize'],
    ]
    assert [scale[0] for scale in branches[0][0].scales] == list(range(480, 801, 32))
    assert {scale[1] for scale in branches[0][0].scales} == {1333}
    assert branches[1][1].crop_size == (384, 600)
    assert [hook.type for hook in cfg.custom_hooks] == ['SparsityReportHook']


def test_published_learning_rates_of_the_stages() -> None:
    """Layer l of 12 gets 0.8 ** (13 - l); SW-T has six layers in its third stage, at 3 to 8."""
    from mmengine.optim import build_optim_wrapper

    cfg = load_config(CASCADE)
    cfg.model.backbone.update(
        arch=dict(depths=[3, 3, 18, 3], dims=DIMS), big_kernels=(5, 5, 5, 5), init_cfg=None
    )
    cfg.model.neck.in_channels = DIMS
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    rate = {name: rates[id(param)] for name, param in model.named_parameters()}
    layers = {
        'backbone.downsample_layers.0.0.weight': 0,
        'backbone.stages.0.2.gamma': 1,
        'backbone.downsample_layers.1.0.weight': 2,
        'backbone.stages.1.0.gamma': 2,
        'backbone.stages.2.0.gamma': 3,
        'backbone.stages.2.17.gamma': 8,
        'backbone.stages.3.0.gamma': 12,
        'roi_head.mask_head.0.conv_logits.weight': 13,
    }
    expected = {name: pytest.approx(1e-4 * 0.8 ** (13 - n)) for name, n in layers.items()}
    assert {name: rate[name] for name in layers} == expected


@pytest.mark.parametrize('name', ['mask_rcnn', 'retinanet'])
def test_one_x_schedules(name: str) -> None:
    cfg = load_config(ROOT / f'configs/{name}_sw_t_1x_coco.py')
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [8, 11]
    assert cfg.param_scheduler[1].end == 12
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [step.scale for step in pipeline if step.type == 'Resize'] == [(1333, 800)]
