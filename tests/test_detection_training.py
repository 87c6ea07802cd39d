"""Detection end to end, in miniature: a sparse start, training, evaluation, resuming, pictures."""

from pathlib import Path

import cv2
import pytest
import torch
from demo_helpers import small_kernels
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS

from mmsw.apis import build_runner, build_test_runner, load_config
from mmsw.checkpoint import save_checkpoint_file
from mmsw.demo import COCO_CLASSES, PALETTE, make_demo_data
from mmsw.sparsity import magnitude_masks, report, set_masks

for _package in ('skimage', 'sklearn', 'imgviz', 'mmdet'):
    pytest.importorskip(_package, reason=f'{_package}: absent; the demo needs it')

CONFIG = Path(__file__).parents[1] / 'configs/demo/mask_rcnn_sw_mini_scenes.py'
SPARSITY = 0.4


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(out_dir, num_train=6, num_val=3, size=96)
    return out_dir / 'coco'


@pytest.fixture(scope='module')
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned backbone as a pretraining leaves it: weights, masks and patterns."""
    settings = load_config(CONFIG).model.backbone
    settings.pop('init_cfg')
    net = revert_sync_batchnorm(MODELS.build(settings))
    set_masks(net, magnitude_masks(net, SPARSITY))
    path = tmp_path_factory.mktemp('start') / 'sparse.pth'
    save_checkpoint_file({'state_dict': net.state_dict()}, path)
    return path


def options(max_iters: int) -> dict:
    return {
        'train_dataloader.batch_size': 2,
        'train_cfg.max_iters': max_iters,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 2,
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'model.train_cfg.rpn_proposal.max_per_img': 50,
        'model.train_cfg.rcnn.sampler.num': 32,
        'model.test_cfg.rpn.max_per_img': 50,
        'model.test_cfg.rcnn.max_per_img': 10,
        **{
            f'{split}_dataloader.{key}': value
            for split in ('train', 'val', 'test')
            for key, value in (('num_workers', 0), ('persistent_workers', False))
        },
    }


@pytest.fixture(scope='module')
def trained(data: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work folder of a run of two iterations that a second run took up to four."""
    folder = tmp_path_factory.mktemp('work')
    call = dict(work_dir=folder, data_root=data, pretrained=start)
    build_runner(CONFIG, cfg_options=options(2), **call).train()
    resumed = build_runner(CONFIG, cfg_options=options(4), resume='auto', **call)
    resumed.train()
    assert resumed.iter == 4
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= {
        key.removeprefix('val/') for key in resumed.message_hub.log_scalars if 'mAP' in key
    }
    return folder


def test_config_fits_the_data() -> None:
    cfg = load_config(CONFIG)
    assert tuple(cfg.metainfo.classes) == COCO_CLASSES
    assert [list(colour) for colour in cfg.metainfo.palette] == PALETTE[1:]
    assert cfg.model.roi_head.bbox_head.num_classes == len(COCO_CLASSES)
    assert cfg.model.roi_head.mask_head.num_classes == len(COCO_CLASSES)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.metainfo == cfg.metainfo
        assert cfg[loader].dataset.data_root == cfg.data_root
    assert 'Flip' not in str(cfg.train_pipeline), 'digits are never mirrored'
    assert cfg.custom_hooks == [dict(type='SparsityReportHook', require_sparse=True)]


def test_stays_exactly_sparse_through_resuming(start: Path, trained: Path) -> None:
    before = small_kernels(start)
    for iteration in (2, 4):
        after = small_kernels(trained / f'iter_{iteration}.pth')
        assert after.keys() == before.keys()
        moved = 0
        for name, weight in after.items():
            pruned = before[name] == 0
            assert torch.count_nonzero(weight[pruned]) == 0
            assert torch.count_nonzero(weight[~pruned]) == int((~pruned).sum())
            moved += int((weight != before[name]).sum())
        assert moved > 0
    share = sum(int((w.flatten(1) == 0).all(1).sum()) for w in before.values())
    share /= sum(len(w) for w in before.values())
    assert share == pytest.approx(SPARSITY, abs=0.01)


def test_testing_draws_boxes_and_masks(data: Path, trained: Path, tmp_path: Path) -> None:
    runner = build_test_runner(
        CONFIG,
        trained / 'iter_4.pth',
        work_dir=tmp_path / 'work',
        data_root=data,
        cfg_options={
            **options(4),
            'model.test_cfg.rcnn.score_thr': 0.0,
            'default_hooks.visualization.score_thr': 0.0,
        },
        show_dir=tmp_path / 'shown',
    )
    scores = runner.test()
    assert 0 <= scores['coco/bbox_mAP'] <= 1
    assert 0 <= scores['coco/segm_mAP'] <= 1
    assert report(runner.model).total.density == pytest.approx(1 - SPARSITY, abs=0.01)
    pictures = sorted((tmp_path / 'shown').rglob('*.jpg'))
    assert len(pictures) == 3
    for picture in pictures:  # truth and prediction side by side, and the prediction is drawn on
        drawn = cv2.imread(str(picture))
        photo = cv2.imread(str(data / 'val2017' / picture.name))
        assert drawn.shape == (photo.shape[0], 2 * photo.shape[1], 3)
        assert abs(drawn[:, photo.shape[1] :].astype(int) - photo).mean() > 1
