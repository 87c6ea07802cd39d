"""Every recipe trains on tiny data, and does what its header says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from config_helpers import ROOT
from mmengine.runner import Runner
from own_data_helpers import CLASSES, TINY, unfilled

from mmsw.apis import build_runner, build_test_runner, load_config

pytest.importorskip('mmseg', reason='mmseg: not installed')
pytestmark = pytest.mark.usefixtures('plain_config_text')
RECIPES = ROOT / 'configs' / 'recipes'
SMALL = TINY | {
    'model.backbone.arch.depths': [1, 1, 1, 1],
    'model.backbone.big_kernels': (7, 7, 5, 3),
    'own_data.max_iters': 1,
}
SEGMENTATION = SMALL | {
    'own_data.crop_size': 32,
    'val_dataloader.dataset.indices': 1,
    'test_dataloader.dataset.indices': 1,
}
TWO_CLASSES = SEGMENTATION | {'own_data.ignore': (2, 255)}  # the files hold three


def trained(recipe: str, options: dict, root: Path, work_dir: Path) -> Runner:
    """A run of one iteration and an evaluation."""
    cfg = unfilled(RECIPES / f'{recipe}.py')
    runner = build_runner(cfg, cfg_options=options, work_dir=work_dir, data_root=root)
    runner.train()
    assert (work_dir / 'iter_1.pth').is_file()
    return runner


def score(runner: Runner) -> float:
    name = 'coco/bbox_mAP' if 'mmdet' in runner.cfg.default_scope else 'mIoU'
    return runner.message_hub.get_scalar(f'val/{name}').current()


def has_weights(runner: Runner) -> None:
    assert runner.model.decode_head.loss_decode.class_weight == [0.5, 2.0]


def ignores_the_first_class(runner: Runner) -> None:
    data = runner.train_dataloader.dataset
    seen = {int(v) for i in range(2) for v in data[i]['data_samples'].gt_sem_seg.data.unique()}
    assert {1, 2} <= seen <= {1, 2, 255}
    assert data.metainfo['classes'] == CLASSES
    assert runner.model.decode_head.num_classes == 3


def has_one_channel(runner: Runner) -> None:
    head = runner.model.decode_head
    assert (head.conv_seg.out_channels, head.num_classes) == (1, 2)
    assert head.loss_decode.use_sigmoid


def is_frozen(runner: Runner) -> None:
    backbone = runner.model.backbone
    learns = [any(p.requires_grad for p in stage.parameters()) for stage in backbone.stages]
    assert learns == [False, False, True, True]


def has_rates(runner: Runner) -> None:
    rates = {group['initial_lr'] for group in runner.optim_wrapper.param_groups}
    assert len(rates) > 3
    assert max(rates) == pytest.approx(runner.cfg.optim_wrapper.optimizer.lr)


def stops_early(runner: Runner) -> None:
    assert any(type(hook).__name__ == 'EarlyStoppingHook' for hook in runner.hooks)
    cfg = load_config(RECIPES / 'longer_training.py')
    base = load_config(ROOT / 'configs' / 'own_segmentation_sw_mini.py')
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 100
    assert len(cfg.custom_hooks) == len(base.custom_hooks) + 1


CHECKS: dict[str, tuple[Callable[[Runner], None], dict[str, Any]]] = {
    'class_weights': (has_weights, TWO_CLASSES),
    'ignored_class': (ignores_the_first_class, SEGMENTATION),
    'binary_sigmoid': (has_one_channel, TWO_CLASSES),
    'frozen_stages': (is_frozen, TWO_CLASSES),
    'layer_wise_rates': (has_rates, TWO_CLASSES),
    'longer_training': (stops_early, TWO_CLASSES),
}


@pytest.mark.parametrize('recipe', CHECKS)
def test_segmentation(recipe: str, segmentation: Path, tmp_path: Path) -> None:
    check, options = CHECKS[recipe]
    runner = trained(recipe, options, segmentation, tmp_path)
    check(runner)
    assert 0 <= score(runner) <= 100
    if recipe == 'binary_sigmoid':
        path, other = tmp_path / 'iter_1.pth', {'model.decode_head.threshold': 0.3}
        cfg = unfilled(RECIPES / 'binary_sigmoid.py')
        call = dict(work_dir=tmp_path, data_root=segmentation)
        found = build_test_runner(cfg, path, cfg_options=options | other, **call).test()
        assert 0 <= found['mIoU'] <= 100
    if recipe == 'class_weights':  # a file for the recipe that trains nothing
        cfg = unfilled(RECIPES / 'test_time_augmentation.py')
        call = dict(work_dir=tmp_path, data_root=segmentation, cfg_options=options)
        tester = build_test_runner(cfg, tmp_path / 'iter_1.pth', **call)
        assert type(tester.model).__name__ == 'SegTTAModel'
        assert 0 <= tester.test()['mIoU'] <= 100


def test_one_class_of_a_detection(detection: Path, tmp_path: Path) -> None:
    pytest.importorskip('mmdet', reason='mmdet: not installed')
    options = SMALL | {'own_data.image_size': 64, 'model.test_cfg.score_thr': 0.0}
    runner = trained('some_classes', options, detection, tmp_path)
    assert runner.model.bbox_head.num_classes == 1
    assert runner.train_dataloader.dataset.metainfo['classes'] == ('cell',)
    assert score(runner) <= 1


def test_every_recipe_is_tried_and_is_short() -> None:
    tried = {*CHECKS, 'test_time_augmentation', 'some_classes'}
    assert {path.stem for path in RECIPES.glob('*.py')} == tried
    for path in RECIPES.glob('*.py'):
        head, _, body = path.read_text().partition('_base_ = ')
        assert f'configs/recipes/{path.name}' in head
        assert len(body.splitlines()) <= 12
