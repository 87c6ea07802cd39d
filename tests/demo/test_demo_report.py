"""The demonstration in miniature: fine-tuning from the sparse checkpoint, and the report."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from demo_helpers import CONFIG, ROOT, load_tool, small_kernels
from mmengine.structures import InstanceData

from mmsw.apis import UsageError, build_runner, load_config
from mmsw.checkpoint import load_checkpoint_file, save_checkpoint_file
from mmsw.demo import CLASSES, PALETTE
from mmsw.demo.picture import draw_scenes, paint
from mmsw.demo.report import demo_report
from mmsw.demo.tiles import Objects, choose_scenes, scene_iou
from mmsw.errors import SparsityChangedError
from mmsw.sparsity import report

for _package in ('skimage', 'sklearn', 'imgviz', 'matplotlib', 'mmseg'):
    pytest.importorskip(_package, reason=f'{_package}: absent; the demo needs it')


@pytest.fixture(scope='module')
def trained(
    data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """Work folder of a short run, and the mIoU of its validation."""
    folder = tmp_path_factory.mktemp('work')
    runner = build_runner(
        CONFIG,
        work_dir=folder / 'finetune',
        data_root=data / 'ADEChallengeData2016',
        pretrained=checkpoint,
        cfg_options={
            'train_dataloader.batch_size': 2,
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
            'default_hooks.checkpoint.interval': 2,
            **{
                f'{split}_dataloader.{key}': value
                for split in ('train', 'val', 'test')
                for key, value in (('num_workers', 0), ('persistent_workers', False))
            },
        },
    )
    runner.train()
    return folder, runner.message_hub.get_scalar('val/mIoU').current()


@pytest.fixture(scope='module')
def work_dir(trained: tuple[Path, float]) -> Path:
    return trained[0]


def test_config_fits_the_data():
    cfg = load_config(CONFIG)
    assert tuple(cfg.metainfo.classes) == CLASSES
    assert [list(colour) for colour in cfg.metainfo.palette] == PALETTE
    assert cfg.model.decode_head.num_classes == len(CLASSES)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[loader].dataset
        assert dataset.reduce_zero_label
        assert dataset.metainfo == cfg.metainfo
        assert dataset.data_root == cfg.data_root
    for name in ('train_pipeline', 'test_pipeline', 'tta_pipeline'):
        assert 'Flip' not in str(cfg[name]), 'digits are never mirrored'
    assert cfg.custom_hooks == [dict(type='SparsityReportHook', require_sparse=True)]


def test_training_keeps_the_zeros_and_the_report_says_so(work_dir, checkpoint, capsys):
    run = str(work_dir / 'finetune')
    assert load_tool('demo_report').main([str(work_dir), '--beside', run]) == 0
    shown = capsys.readouterr().out
    start, end = small_kernels(checkpoint), small_kernels(work_dir / 'finetune/iter_2.pth')
    assert any(not torch.equal(start[key], end[key]) for key in start), 'nothing was trained'
    zeros = sum(int((weight == 0).sum()) for weight in start.values())
    assert zeros == sum(int((weight == 0).sum()) for weight in end.values())
    assert f'All {zeros} weights that are zero in {checkpoint}' in shown
    filters = sum(len(weight) for weight in start.values())
    kept = sum(int(weight.flatten(1).any(1).sum()) for weight in start.values())
    density = f'{kept}/{filters} = {kept / filters:.2%}'
    assert re.search(rf'in all +{density} +{density}', shown)
    assert re.search(r'mIoU on 3 held-out scenes +\d+\.\d\d % +\d+\.\d\d %', shown)
    score = re.search(r'mIoU on 3 held-out scenes .* (\d+\.\d\d %)\n', shown)[1]
    assert re.search(rf'mIoU of {run} +{score}\n', shown)  # the same run once more
    picture = cv2.imread(str(work_dir / 'demo.png'))
    assert picture.shape[0] > picture.shape[1] == 1660  # four rows of three scenes, twice 830
    assert picture.std() > 20
    assert sorted(path.name for path in work_dir.iterdir()) == ['demo.png', 'finetune']


def test_report_of_the_final_scores(trained):
    work_dir, validated = trained
    assert demo_report(work_dir).scores['mIoU'][1] == validated


def test_report_notices_a_lost_zero(work_dir, tmp_path):
    end = work_dir / 'finetune/iter_2.pth'
    kept = end.read_bytes()
    content = load_checkpoint_file(end)
    weight = content['state_dict']['backbone.stages.1.0.shift_wise.paths.1.weight']
    index = (weight == 0).nonzero()[5]
    weight[tuple(index)] = 1e-9
    try:
        save_checkpoint_file(content, end)
        with pytest.raises(SparsityChangedError, match=r'1 weights .*stages\.1\.0.*paths\.1'):
            demo_report(work_dir)
    finally:
        end.write_bytes(kept)


def test_report_without_a_run(tmp_path, capsys):
    assert load_tool('demo_report').main([str(tmp_path / 'nothing')]) == 2
    shown = capsys.readouterr()
    assert re.fullmatch(
        r'error: .*nothing/finetune holds 0 configs.*tools/train\.py.*\n', shown.err
    )
    (tmp_path / 'finetune').mkdir()
    text = CONFIG.read_text().replace('../', f'{ROOT}/configs/')
    (tmp_path / 'finetune/config.py').write_text(text)
    with pytest.raises(UsageError, match='holds no checkpoint yet'):
        demo_report(tmp_path)


def test_chosen_scenes_show_many_classes():
    classes = [{1, 2}, {1, 2, 3}, {3}, {4, 5}, set(), {1, 2, 3}]
    assert choose_scenes(classes, 1) == [1]
    assert choose_scenes(classes, 2) == [1, 3]
    assert choose_scenes(classes, 3) == [1, 3, 5]
    assert choose_scenes(classes, 9) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    'names', [('upernet_sw_mini', 'upernet_r18'), ('mask_rcnn_sw_mini', 'mask_rcnn_r18')]
)
def test_the_network_beside_learns_from_random_values_and_the_same_data(names):
    own, other = (load_config(ROOT / f'configs/demo/{name}_scenes.py') for name in names)
    for key in (
        'train_dataloader',
        'test_dataloader',
        'train_cfg',
        'param_scheduler',
        'randomness',
    ):
        assert own[key] == other[key], key
    assert own.optim_wrapper.optimizer == other.optim_wrapper.optimizer
    assert other.model.backbone.depth == 18
    assert 'init_cfg' not in other.model.backbone
    assert other.custom_hooks == []


class OneScene:
    """A detector's data: one object of class 1 in a scene of 20 pixels."""

    metainfo = dict(classes=('a', 'b'), palette=[(250, 0, 0), (0, 0, 250)])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        sample = InstanceData(gt_instances=self.objects())
        return dict(inputs=torch.full((3, 20, 20), 100, dtype=torch.uint8), data_samples=sample)

    @staticmethod
    def objects(**more: torch.Tensor) -> InstanceData:
        masks = torch.zeros(1, 20, 20, dtype=torch.bool)
        masks[:, 5:9, 5:9] = True
        boxes, labels = torch.tensor([[5.0, 5.0, 9.0, 9.0]]), torch.tensor([1])
        return InstanceData(bboxes=boxes, labels=labels, masks=masks, **more)


def test_objects_have_the_colour_of_their_class_in_truth_and_prediction(tmp_path):
    objects = Objects(OneScene(), 4)
    (truth,) = objects.scenes()
    found = [
        InstanceData(pred_instances=OneScene.objects(scores=torch.tensor([score])))
        for score in (0.93, 0.2)
    ]
    sure, unsure = (objects.predicted('net', [sample]) for sample in found)
    assert np.array_equal(truth.tiles[0].image, sure.tiles[0].image)
    assert truth.tiles[0].image[6, 6].argmax() == 2  # blue, as the palette says
    assert (truth.tiles[0].image[1, 1] == 100).all()
    assert [(box.colour, box.text) for box in sure.tiles[0].boxes] == [((0, 0, 250), '93')]
    assert truth.tiles[0].boxes[0].text == ''
    assert unsure.tiles[0].boxes == []
    draw_scenes([truth, sure, unsure], objects.legend, tmp_path / 'objects.png')
    assert cv2.imread(str(tmp_path / 'objects.png')).shape[0] > 1400


def test_iou_of_a_scene_is_the_mean_over_its_classes():
    truth = np.array([0, 0, 1, 255])
    assert scene_iou(np.array([0, 0, 1, 2]), truth) == 1
    assert scene_iou(np.array([0, 2, 1, 0]), truth) == (1 / 2 + 1 + 0) / 3


def test_paint_shows_classes_and_leaves_the_rest_dark():
    photo = np.full((1, 4, 3), 200, np.uint8)
    colours = np.array([[255, 255, 255], [250, 0, 0]])
    painted = paint(photo, np.array([[0, 1, 255, 7]]), colours)
    assert painted[0, 1, 0] > 200
    assert painted[0, 1, 1] < 20
    assert (painted[0, [0, 2, 3]] == 80).all()
    assert report(torch.nn.Identity()).total.total == 0
