"""The length of training and all that depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_data_helpers import CLASSES, load, unfilled

from mmsw.apis import UsageError, load_config
from mmsw.apis.own_data.schedule import evaluation_interval, iterations_for, log_interval
from mmsw.apis.own_data.settings import read_settings

SETTINGS = dict(
    task='segmentation',
    data_root='x',
    train=dict(images='a', labels='b'),
    val=0.2,
    classes=CLASSES,
    passes=25,
    iterations=(600, 20000),
)


@pytest.mark.parametrize(
    ('images', 'total', 'iterations'),
    [
        (10, 4, 600),
        (367, 4, 2300),
        (367, 16, 600),
        (200, 4, 1300),
        (120, 4, 750),
        (10**6, 4, 20000),
    ],
)
def test_iterations_follow_from_the_number_of_images(
    images: int, total: int, iterations: int
) -> None:
    assert iterations_for(read_settings(SETTINGS), images, total) == iterations


@pytest.mark.parametrize('length', [1, 2, 7, 50, 600, 777, 1100, 2300, 9973, 20000])
def test_intervals(length: int) -> None:
    interval = evaluation_interval(length)
    assert 1 <= length / interval <= 12
    assert interval % log_interval(interval) == 0
    if length % 50 == 0:
        assert length % interval == 0


def test_all_places_get_the_same_length(segmentation: Path) -> None:
    cfg = load('own_segmentation_sw_mini', segmentation, classes=CLASSES, max_iters=1000)
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=200)
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.end, poly.begin, poly.end) == (50, 50, 1000)
    assert cfg.default_hooks.checkpoint.interval == 200
    assert cfg.default_hooks.logger.interval == 50
    # 3e-3 for 16 images; a quarter of them has half the rate
    assert cfg.optim_wrapper.optimizer.lr == 1.5e-3
    assert cfg.auto_scale_lr.base_batch_size == 4


def test_a_run_of_two_iterations_has_no_warm_up(segmentation: Path) -> None:
    cfg = load('own_segmentation_sw_mini', segmentation, classes=CLASSES, max_iters=2)
    (poly,) = cfg.param_scheduler
    assert (poly.begin, poly.end, cfg.train_cfg.val_interval) == (0, 2, 1)


def test_several_processes_share_the_work(
    segmentation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dict(RANK='0', WORLD_SIZE='4', MASTER_ADDR='localhost').items():
        monkeypatch.setenv(name, value)
    cfg = load('own_segmentation_sw_mini', segmentation, classes=CLASSES, batch_size=4)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (4, 16)
    assert cfg.optim_wrapper.optimizer.lr == 3e-3


def test_a_config_in_epochs_gets_the_rest(segmentation: Path) -> None:
    config = unfilled('own_segmentation_sw_mini.py').copy()
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
    with pytest.raises(UsageError, match=r'param_scheduler\.0\.end is empty.* in epochs needs'):
        load_config(config, {'own_data.classes': CLASSES}, segmentation)
    config.param_scheduler = [dict(type='PolyLR', end=2)]
    cfg = load_config(config, {'own_data.classes': CLASSES}, segmentation)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-3)
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.auto_scale_lr.base_batch_size == 4
