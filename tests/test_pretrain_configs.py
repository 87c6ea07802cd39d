"""Configs of pretraining, and those that sparsify while fine-tuning: parsed without mmpretrain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from config_helpers import RECIPE, ROOT, count_parameters
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import HOOKS, MODELS
from pretrain_helpers import CONFIGS, NETWORKS, PRETRAIN, SW_T, published_classifier

from mmsw.apis import load_config
from mmsw.checkpoint import (
    CheckpointError,
    from_classifier,
    load_pretrained,
    load_release_checkpoint,
    save_checkpoint_file,
    to_classifier,
)
from mmsw.engine import DynamicSparsityHook, SparsityReportHook
from mmsw.models import PooledNorm, ShiftWiseNet
from mmsw.sparsity import report

SPARSIFY_ADE = ROOT / 'configs' / 'upernet_sw_t_ade20k_sparsify.py'
SPARSIFY_COCO = ROOT / 'configs' / 'cascade_mask_rcnn_sw_t_coco_sparsify.py'
COCO_IMAGES = 117_266  # of the training set, those with objects


@pytest.mark.parametrize('name', CONFIGS)
def test_config_parses_without_mmpretrain(name: str) -> None:
    cfg = load_config(PRETRAIN / name)
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.custom_imports.imports == ['mmsw']
    expected = ['SparsityReportHook']
    if 'dense' not in name:
        expected = ['DynamicSparsityHook', *expected]
    assert [hook.type for hook in cfg.custom_hooks] == expected


def test_recipe() -> None:
    cfg = load_config(SW_T)
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=4096)
    assert cfg.train_dataloader.batch_size * 32 == 4096

    assert cfg.optim_wrapper.type == 'OptimWrapper'  # mixed precision is the user's choice
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 4e-3, 0.05)
    assert set(cfg.optim_wrapper.paramwise_cfg.values()) == {0.0}
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.type, warm_up.begin, warm_up.end) == ('LinearLR', 0, 5)
    assert (cosine.type, cosine.begin, cosine.T_max, cosine.end) == (
        'CosineAnnealingLR',
        5,
        295,
        300,
    )

    assert cfg.model.backbone.drop_path_rate == 0.2
    assert cfg.model.backbone.layer_scale_init_value == 1e-6
    assert cfg.model.head.loss == dict(
        type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
    )
    assert {item.type: item.alpha for item in cfg.model.train_cfg.augments} == {
        'Mixup': 0.8,
        'CutMix': 1.0,
    }
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    rand = train['RandAugment']
    assert (rand.policies, rand.num_policies) == ('timm_increasing', 2)
    assert (rand.magnitude_level, rand.total_level, rand.magnitude_std) == (9, 10, 0.5)
    assert train['RandomErasing'].erase_prob == 0.25
    crop = train['RandomResizedCrop']
    assert (crop.scale, crop.interpolation) == (224, 'bicubic')
    test = {step.type: step for step in cfg.test_dataloader.dataset.pipeline}
    assert (test['ResizeEdge'].scale, test['ResizeEdge'].interpolation) == (256, 'bicubic')
    assert test['CenterCrop'].crop_size == 224

    sparse = cfg.custom_hooks[0].to_dict()
    assert sparse == dict(
        type='DynamicSparsityHook',
        start='snip',
        sparsity=0.3,
        interval=100,
        prune_rate=0.3,
        end_rate=0.005,
        prune='magnitude',
        grow='random',
        granularity='filter',
        align_interval=131,
    )


def test_mean_of_erased_pixels_is_that_of_the_preprocessor() -> None:
    cfg = load_config(SW_T)
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.to_rgb
    assert cfg.bgr_mean == list(preprocessor.mean)[::-1]
    assert cfg.bgr_std == list(preprocessor.std)[::-1]


def test_every_hook_of_sparse_training_can_be_built() -> None:
    for path in (SW_T, SPARSIFY_ADE):
        cfg = load_config(path)
        sparse, report_hook = (HOOKS.build(hook) for hook in cfg.custom_hooks)
        assert isinstance(sparse, DynamicSparsityHook)
        assert (sparse.interval, sparse.end_iter) == {
            SW_T: (100, None),
            SPARSIFY_ADE: (400, 120001),
        }[path]
        assert sparse.snip_batches == 1
        assert isinstance(report_hook, SparsityReportHook)
        assert not report_hook.require_sparse


@pytest.mark.parametrize(('name', 'golden', 'dense'), NETWORKS)
def test_network_is_the_published_one(
    data_dir: Path, name: str, golden: str, dense: str | None
) -> None:
    cfg = load_config(PRETRAIN / name)
    backbone = revert_sync_batchnorm(MODELS.build(cfg.model.backbone))
    channels = backbone.dims[-1]
    assert cfg.model.neck.in_channels == cfg.model.head.in_channels == channels
    assert cfg.model.head.num_classes == cfg.model.data_preprocessor.num_classes == 1000
    around = count_parameters(PooledNorm(channels)) + channels * 1000 + 1000
    published = json.loads((data_dir / 'param_counts.json').read_text())[golden]['params']
    assert count_parameters(backbone) + around == published

    if dense is not None:
        other = load_config(ROOT / 'configs' / dense).model.backbone
        for key in ('arch', 'version', 'big_kernels', 'ghost_ratio', 'num_paths', 'num_reps'):
            assert other[key] == cfg.model.backbone[key]


def test_dense_control_differs_in_the_hook_only() -> None:
    sparse, dense = load_config(SW_T).to_dict(), load_config(PRETRAIN / 'sw_t_dense_in1k.py')
    assert sparse.pop('custom_hooks')[1:] == dense.to_dict().pop('custom_hooks')
    rest = dense.to_dict()
    rest.pop('custom_hooks')
    assert rest == sparse


def test_pooled_norm_is_the_published_end_of_the_network(data_dir: Path) -> None:
    net, state = published_classifier(data_dir / 'backbone_v2_mini_checkpoint.pth')
    golden = np.load(data_dir / 'backbone_v2_mini_io.npz')
    neck = PooledNorm(40)
    neck.load_state_dict(
        {key.removeprefix('neck.'): state[key] for key in state if key.startswith('neck.')}
    )
    with torch.no_grad():
        maps = net(torch.from_numpy(golden['image']))
        (features,) = neck(maps)
        logits = F.linear(features, state['head.fc.weight'], state['head.fc.bias'])
        normed = neck.norm(maps[-1].permute(0, 2, 3, 1)).mean((1, 2))  # the other order
        others = F.linear(normed, state['head.fc.weight'], state['head.fc.bias'])
    expected = torch.from_numpy(golden['logits'])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert (others - expected).abs().max() > 10 * (logits - expected).abs().max()


def test_output_norm_is_all_that_output_norm_changes() -> None:
    settings = dict(arch=dict(depths=[1] * 4, dims=[8] * 4), big_kernels=(9, 7, 7, 5))
    normed, raw = ShiftWiseNet(**settings).eval(), ShiftWiseNet(**settings, output_norm=False)
    assert set(normed.state_dict()) - set(raw.state_dict()) == {
        f'norm{stage}.{kind}' for stage in range(4) for kind in ('weight', 'bias')
    }
    raw.load_state_dict(normed.state_dict(), strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for stage, (a, b) in enumerate(zip(normed(image), raw.eval()(image), strict=True)):
            assert torch.equal(a, getattr(normed, f'norm{stage}')(b))


def test_classifier_names_go_both_ways(data_dir: Path) -> None:
    ours = load_release_checkpoint(data_dir / 'backbone_v2_mini_checkpoint.pth')
    theirs = to_classifier(ours)
    assert all(key.startswith(('backbone.', 'neck.', 'head.fc.')) for key in theirs)
    back = from_classifier(theirs)
    assert list(back) == list(ours)
    assert all(back[key] is ours[key] for key in ours)
    del theirs['neck.norm.bias'], ours['head.weight']
    with pytest.raises(CheckpointError, match=r'has no neck\.norm\.bias; a shift-wise'):
        from_classifier(theirs)
    with pytest.raises(CheckpointError, match=r'has no head\.weight; a shift-wise'):
        to_classifier(ours)


def test_pretraining_checkpoint_fills_the_network_of_dense_prediction(
    data_dir: Path, tmp_path: Path
) -> None:
    source, state = published_classifier(data_dir / 'backbone_v2_mini_checkpoint.pth')
    state |= {f'backbone.{key}': value for key, value in source.state_dict().items()}
    path = tmp_path / 'epoch_300.pth'
    save_checkpoint_file({'meta': {'epoch': 300}, 'state_dict': state, 'dynamic': {}}, path)
    net = ShiftWiseNet(arch=dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40]))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    load_pretrained(net, path)
    after = net.state_dict()
    assert all(torch.equal(after[key], value) for key, value in source.state_dict().items())
    rest = set(after) - set(source.state_dict())
    assert {key.split('.')[0] for key in rest} == {'norm0', 'norm1', 'norm2', 'norm3'}
    assert all(torch.equal(after[key], before[key]) for key in rest)
    assert report(net) == report(source)
    assert report(net).total.is_sparse


def check_sparsify(path: Path, iterations: int) -> None:
    cfg = load_config(path)
    base = load_config(path.with_name(path.name.replace('_sparsify', '')))
    hook, rest = cfg.custom_hooks[0], cfg.custom_hooks[1:]
    assert hook.type == 'DynamicSparsityHook'
    assert rest == base.custom_hooks
    last = (hook.end_iter - 1) // hook.interval  # number of the last exchange
    assert 0.5 * iterations < last * hook.interval < 0.8 * iterations
    assert (last + 1) * hook.interval >= hook.end_iter
    assert last % hook.align_interval == 0  # the paths end with one mask
    assert (hook.start, hook.sparsity) == ('snip', 0.3)

    ours, theirs = cfg.to_dict(), base.to_dict()
    for settings in (ours, theirs):
        settings.pop('custom_hooks')
        settings.pop('dynamic_sparsity', None)
        assert settings['model']['backbone']['init_cfg'].pop('checkpoint')
    assert ours == theirs


def test_sparsifying_segmentor_is_the_recipe_with_the_hook() -> None:
    check_sparsify(SPARSIFY_ADE, load_config(RECIPE).train_cfg.max_iters)


def test_sparsifying_detector_is_the_recipe_with_the_hook() -> None:
    pytest.importorskip('mmdet', reason='mmdet is absent; its configs are inherited')
    cfg = load_config(SPARSIFY_COCO)
    per_epoch = -(-COCO_IMAGES // cfg.auto_scale_lr.base_batch_size)
    check_sparsify(SPARSIFY_COCO, per_epoch * cfg.train_cfg.max_epochs)
    first_drop = cfg.param_scheduler[1].milestones[0]
    assert cfg.custom_hooks[0].end_iter < first_drop * per_epoch
