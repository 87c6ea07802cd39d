"""From own data to a tested checkpoint, with two iterations of training."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from config_helpers import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from own_data_helpers import CLASSES, TINY, unfilled, write_detection

from mmsw.apis import UsageError, build_runner, build_test_runner, load_config, register_toolbox

pytestmark = pytest.mark.usefixtures('plain_config_text')
SMALL_NET = {
    'model.backbone.arch.depths': [1, 1, 1, 1],
    'model.backbone.big_kernels': (7, 7, 5, 3),
}


def scores(work_dir: Path) -> list[str]:
    """Names of what the last test or validation of a run measured."""
    logs = sorted(work_dir.rglob('scalars.json'))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return sorted({key for line in lines for key in line})


def test_a_segmentation_trains_goes_on_and_is_tested(segmentation: Path, tmp_path: Path) -> None:
    pytest.importorskip('mmseg', reason='mmseg: not installed')
    options = TINY | SMALL_NET | {'own_data.classes': CLASSES, 'own_data.crop_size': 32}
    options |= {'own_data.val': 0.25, 'train_cfg.val_interval': 2}
    cfg = unfilled('own_segmentation_sw_mini')
    call = dict(work_dir=tmp_path, data_root=segmentation)
    build_runner(cfg, cfg_options=options, **call).train()
    assert 'mIoU' in scores(tmp_path)
    longer = options | {'own_data.max_iters': 4}
    resumed = build_runner(cfg, cfg_options=longer, resume='auto', **call)
    resumed.train()
    assert resumed.iter == 4
    found = build_test_runner(cfg, tmp_path / 'iter_4.pth', cfg_options=options, **call).test()
    assert 0 <= found['mIoU'] <= 100
    options |= {'own_data.test.images': 'images/val'}  # without labels
    maps = tmp_path / 'maps'
    build_test_runner(cfg, tmp_path / 'iter_4.pth', cfg_options=options, out=maps, **call).test()
    assert sorted(path.name for path in maps.rglob('*.png')) == ['0.png', '1.png']


def test_a_detector_trains_and_is_tested(tmp_path: Path) -> None:
    pytest.importorskip('mmdet', reason='mmdet: not installed')
    root = write_detection(tmp_path / 'data')
    cfg = unfilled('own_mask_rcnn_sw_mini')
    options = TINY | SMALL_NET | {'own_data.image_size': 64}
    call = dict(work_dir=tmp_path / 'work', data_root=root)
    build_runner(cfg, cfg_options=options, **call).train()
    options |= {'own_data.val': 0.5}  # truth that comes with the images
    path = tmp_path / 'work' / 'iter_2.pth'
    found = build_test_runner(cfg, path, cfg_options=options, **call).test()
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= found.keys()
    saved = Config.fromfile(next((tmp_path / 'work').glob('*.py')))
    assert 'own_data' not in saved
    assert saved.model.roi_head.bbox_head.num_classes == 2


def test_boxes_of_part_of_a_file_are_scored_against_their_own_images(tmp_path: Path) -> None:
    evaluation = pytest.importorskip('mmdet.evaluation', reason='mmdet: not installed')
    root = write_detection(tmp_path / 'data', train=4)
    cfg = load_config(unfilled('own_retinanet_sw_mini'), TINY | {'own_data.val': 0.5}, root)
    init_default_scope(register_toolbox(cfg))
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    metric = evaluation.CocoMetric(metric='bbox')
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        (truth,) = sample.instances
        found = dict(
            bboxes=torch.tensor([truth['bbox']]),
            scores=torch.ones(1),
            labels=torch.tensor([truth['bbox_label']]),
        )
        metric.process({}, [{**sample.metainfo, 'pred_instances': found}])
    assert metric.evaluate(len(dataset))['coco/bbox_mAP'] == pytest.approx(1.0)


@pytest.mark.parametrize('name', ['own_segmentation_sw_mini', 'own_retinanet_sw_mini'])
def test_other_programs_are_told_what_to_do(name: str) -> None:
    dataset = unfilled(name).train_dataloader.dataset
    with pytest.raises(UsageError, match=r'tools/print_config\.py CONFIG --out FILE'):
        DATASETS.build(dataset)


def test_the_tool_says_in_one_line_what_is_wrong(
    segmentation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(ROOT / 'tools' / 'train.py'))['main']
    config = 'configs/own_segmentation_sw_mini.py'
    options = ['--cfg-options', 'own_data.clases=a,b']
    assert main([str(ROOT / config), '--data-root', str(segmentation), *options]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: own_data has no 'clases': did you mean classes?"
