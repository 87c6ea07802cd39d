"""Configs for CamVid and BCCD, on pictures in the layout of the two data sets."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from config_helpers import ROOT
from mmengine.registry import init_default_scope
from real_sets import CELLS, VOID, make_bccd, make_camvid

from mmsw.apis import build_runner, build_test_runner, load_config, register_toolbox
from mmsw.apis.complexity_report import count_complexity
from mmsw.sparsity import report

CAMVID, BCCD = ROOT / 'configs/camvid', ROOT / 'configs/bccd'
CONFIGS = sorted([*CAMVID.glob('*.py'), *BCCD.glob('*.py')])
COMPARED = ('convnext_mini', 'equ_slak_mini', 'mit_mini', 'r18_narrow', 'slak_mini')
FARTHEST = 0.1  # multiply-adds of what is compared differ by that share at most
# Of the training pixels that are a class, in the order of the classes.
SHARES = (0.1754, 0.2421, 0.0102, 0.3296, 0.0467, 0.1012, 0.0122, 0.0117, 0.0611, 0.0067, 0.0030)
TINY = {
    'own_data.max_iters': 2,
    'own_data.batch_size': 2,
    'train_cfg.val_interval': 2,
    **{
        f'{part}_dataloader.{key}': value
        for part in ('train', 'val', 'test')
        for key, value in (('num_workers', 0), ('persistent_workers', False))
    },
}

pytestmark = pytest.mark.usefixtures('plain_config_text')


@pytest.fixture(scope='module')
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp('camvid'))


@pytest.fixture(scope='module')
def bccd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bccd(tmp_path_factory.mktemp('bccd'))


def options_for(path: Path, **more: Any) -> dict[str, Any]:
    if path.parent == BCCD:
        return TINY | more
    return TINY | {'own_data.crop_size': 32} | more


def often(path: Path) -> Any:
    """Of the pruned forms, only those of 90% are trained in every run of the tests."""
    rarely = re.search('(static|dynamic)[47]0', path.stem)
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if rarely else [])


def density_named(path: Path) -> float:
    """Share of the small filters that a config keeps, by its name."""
    digits = ''.join(filter(str.isdigit, path.stem.removeprefix('r18_narrow')))
    return 1 - int(digits or 0) / 100


@pytest.mark.parametrize('path', [*map(often, sorted(CAMVID.glob('*.py')))])
def test_segmentors_train_and_are_scored(path: Path, camvid: Path, tmp_path: Path) -> None:
    pytest.importorskip('mmseg', reason='mmseg: absent; the configs of CamVid need it')
    runner = build_runner(path, work_dir=tmp_path, data_root=camvid, cfg_options=options_for(path))
    runner.train()
    kept = report(runner.model).total
    assert kept.density == pytest.approx(density_named(path), abs=1 / max(kept.total, 1))
    assert kept.weight_density == pytest.approx(kept.density)
    assert 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    assert runner.train_loop.dataloader.dataset.metainfo['classes'] == (
        *('sky', 'building', 'pole', 'road', 'pavement', 'tree'),
        *('sign', 'fence', 'car', 'pedestrian', 'bicyclist'),
    )


@pytest.mark.parametrize('path', sorted(BCCD.glob('*.py')), ids=lambda path: path.stem)
def test_detectors_train_and_are_tested(path: Path, bccd: Path, tmp_path: Path) -> None:
    pytest.importorskip('mmdet', reason='mmdet: absent; the configs of BCCD need it')
    call = dict(work_dir=tmp_path, data_root=bccd, cfg_options=options_for(path))
    runner = build_runner(path, **call)
    runner.train()
    images = runner.train_loop.dataloader.dataset
    assert images.metainfo['classes'] == tuple(CELLS)
    boxes = [images.get_data_info(index)['instances'] for index in range(len(images))]
    assert [len(found) for found in boxes] == [2, 3, 3, 3]
    assert runner.model.bbox_head.num_classes == 3
    found = build_test_runner(path, tmp_path / 'iter_2.pth', **call).test()
    assert {'coco/bbox_mAP', 'coco/bbox_mAP_50'} <= found.keys()
    assert not [key for key in found if 'segm' in key]


def test_void_is_neither_learned_nor_counted(camvid: Path) -> None:
    """The loss is the weighted sum over labelled pixels, over the number of pixels of a batch."""
    registry = pytest.importorskip('mmseg.registry', reason='mmseg: absent; the loss is its own')
    cfg = load_config(CAMVID / 'sw_mini_camvid.py', options_for(CAMVID), camvid)
    init_default_scope(register_toolbox(cfg))
    labels = registry.DATASETS.build(cfg.val_dataloader.dataset)[0]['data_samples'].gt_sem_seg.data
    raw = cv2.imread(str(camvid / 'valannot/0.png'), cv2.IMREAD_UNCHANGED)
    assert torch.equal(labels[0] == 255, torch.from_numpy(raw == VOID))
    assert labels[labels != 255].unique().tolist() == list(range(VOID))

    head = cfg.model.decode_head
    logits = torch.randn(1, VOID, *labels.shape[1:], dtype=torch.float64, requires_grad=True)
    loss = registry.MODELS.build(head.loss_decode)(logits, labels.long(), ignore_index=255)
    loss.backward()
    logarithms = logits.detach().log_softmax(1)[0]
    expected = -sum(
        head.loss_decode.class_weight[label] * logarithms[label, labels[0] == label].sum()
        for label in range(VOID)
    )
    assert loss.item() == pytest.approx(expected.item() / (4 * 160 * 224), rel=1e-6)
    assert logits.grad[:, :, labels[0] == 255].abs().max() == 0
    assert (logits.grad[:, :, labels[0] != 255] != 0).all()


def test_weights_of_the_classes_follow_from_their_shares() -> None:
    weights = load_config(CAMVID / 'sw_mini_camvid.py').model.decode_head.loss_decode.class_weight
    raw = [1 / math.log(1.02 + share) for share in SHARES]
    mean = sum(weight * share for weight, share in zip(raw, SHARES, strict=True)) / sum(SHARES)
    # the shares are rounded, the rarest by 2%
    assert weights == pytest.approx([weight / mean for weight in raw], abs=0.02)


@pytest.mark.parametrize(
    ('path', 'size', 'others'),
    [
        (CAMVID / 'sw_mini_camvid.py', (360, 480), [f'{name}_camvid.py' for name in COMPARED]),
        (BCCD / 'retinanet_sw_mini_bccd.py', (240, 320), ['retinanet_r18_narrow_bccd.py']),
    ],
    ids=['camvid', 'bccd'],
)
def test_what_is_compared_costs_the_same(
    path: Path, size: tuple[int, int], others: list[str]
) -> None:
    package = 'mmseg' if path.parent == CAMVID else 'mmdet'
    pytest.importorskip(package, reason=f'{package}: absent; the configs need it')
    macs = count_complexity(path, size).macs_dense
    for name in others:
        other = count_complexity(path.with_name(name), size).macs_dense
        assert abs(other / macs - 1) < FARTHEST, name


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_imports_what_it_names(path: Path) -> None:
    """A tool imports the demonstration, which brings DemoNarrowInit, for a config that says so."""
    assert 'mmsw.demo' in load_config(path).custom_imports.imports


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_is_found_by_its_name(path: Path) -> None:
    named = load_config(f'mmsw::{path.parent.name}/{path.name}')
    assert named.model.to_dict() == load_config(path).model.to_dict()
