"""The demonstration in miniature: pretraining and pruning, fine-tuning, report."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from demo_helpers import small_kernels

from mmsw.apis import UsageError, build_runner, load_config
from mmsw.apis.demo_picture import paint
from mmsw.apis.demo_pretraining import (
    make_demo_checkpoint,
    plain_views,
    random_views,
    read_cutouts,
)
from mmsw.apis.demo_report import SparsityChangedError, choose_scenes, demo_report
from mmsw.checkpoint import load_checkpoint_file, save_checkpoint_file
from mmsw.datasets import CLASSES, PALETTE, make_demo_data
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import masks, report

for _package in ('skimage', 'sklearn', 'imgviz', 'matplotlib', 'mmseg'):
    pytest.importorskip(_package, reason=f'{_package} is absent; the demo needs it')

REPOSITORY = Path(__file__).parents[1]
CONFIG = REPOSITORY / 'configs/demo/upernet_sw_mini_scenes.py'
SPARSITY = 0.3


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'{name}_tool', REPOSITORY / f'tools/{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(out_dir, num_train=6, num_val=3, size=96)
    return out_dir


@pytest.fixture(scope='module')
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('pretrained') / 'new/sparse.pth'
    options = ['--data', data, '--out', out, '--sparsity', SPARSITY, '--epochs', 2]
    assert load_tool('make_demo_checkpoint').main([str(item) for item in options]) == 0
    return out


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


def test_checkpoint_is_exactly_as_sparse_as_asked(checkpoint):
    kernels = small_kernels(checkpoint)
    net = ShiftWiseNet(
        **load_checkpoint_file(checkpoint)['meta']['backbone'],
        init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint)),
    )
    net.init_weights()
    assert len(kernels) == len(masks(net)) == 2 * sum(net.depths)
    for name, mask in masks(net).items():
        pruned = ~mask.flatten(1).any(1)
        assert int(pruned.sum()) == round(SPARSITY * len(pruned))
        assert torch.count_nonzero(kernels[f'{name}.weight'][pruned]) == 0
        assert torch.count_nonzero(kernels[f'{name}.weight'][~pruned]) == mask[~pruned].numel()
    assert {key for key in load_checkpoint_file(checkpoint)['state_dict'] if 'head' in key} == {
        'head.weight',
        'head.bias',
    }


def test_pretraining_is_deterministic_and_leaves_random_states_alone(data, checkpoint, tmp_path):
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    lines: list[str] = []
    made = make_demo_checkpoint(
        data, tmp_path / 'again.pth', CONFIG, SPARSITY, epochs=2, progress=lines.append
    )
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    first, second = (load_checkpoint_file(path) for path in (checkpoint, made.path))
    for key, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][key]), key
    assert first['meta']['accuracy'] == made.final_accuracy
    assert made.sparsity.total.kept < made.sparsity.total.total
    assert [line.split(':')[0] for line in lines] == [
        'epoch 1/2',
        'accuracy on held-out objects, dense',
        'accuracy right after pruning',
        'epoch 2/2',
        'accuracy at the end, sparse',
    ]


def test_command_line_reports(data, tmp_path, capsys):
    out = tmp_path / 'dense.pth'
    arguments = ['--data', str(data), '--out', str(out), '--sparsity', '0', '--epochs', '2']
    assert load_tool('make_demo_checkpoint').main(arguments) == 0
    shown = capsys.readouterr().out
    assert 'accuracy right after pruning: ' in shown
    assert re.search(r'in all +(\d+)/\1 filters \(100\.00%\)', shown)
    assert torch.count_nonzero(small_kernels(out)['stages.0.0.shift_wise.paths.0.weight']) > 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (['--sparsity', '1'], r'sparsity must be in \[0, 1\), got 1\.0'),
        (['--sparsity', '-0.2'], r'got -0\.2'),
        (['--epochs', '1'], 'epochs must be at least 2 .*got 1'),
        (['--seed', '-4'], 'seed must not be negative, got -4'),
        (['--data', 'nowhere'], r'no demo data in nowhere: .*tools/make_demo_data\.py nowhere'),
        (['--out', '.'], 'is a folder'),
        (['--config', 'none.py'], r'none\.py does not exist'),
    ],
)
def test_command_line_errors_are_one_line(data, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    arguments = ['--data', str(data), '--out', 'sparse.pth', *change]
    assert load_tool('make_demo_checkpoint').main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith('error: ')
    assert re.search(message, shown.err)
    assert shown.err.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_cutouts_show_the_annotated_objects(data):
    cutouts = read_cutouts(data, 'train')
    annotations = json.loads((data / 'coco/annotations/instances_train2017.json').read_text())
    expected = [item['category_id'] - 1 for item in annotations['annotations']]
    objects = cutouts.labels < 10
    assert sorted(cutouts.labels[objects]) == sorted(expected)
    assert 0 < (~objects).sum() <= 6
    first = annotations['annotations'][0]
    assert cutouts.labels[0] == first['category_id'] - 1
    x, y, width, height = first['bbox']
    scene = cv2.imread(str(data / 'coco/train2017/000000000001.jpg'))
    view = plain_views(torch.from_numpy(cutouts.images[:1]).permute(0, 3, 1, 2).float())[0]
    middle = view[:, 20:-20, 20:-20].mean((1, 2)).numpy()
    centre_x, centre_y = x + width // 2, y + height // 2
    reach = round(max(width, height) * 1.3 * 12 / 64)
    around = scene[centre_y - reach : centre_y + reach, centre_x - reach : centre_x + reach]
    assert np.abs(middle - around.mean((0, 1))).max() < 12


def test_random_views_never_mirror():
    images = torch.zeros(64, 3, 102, 102)
    images[..., 51:] += 100  # bright to the right
    images[:, :, 51:] += 60  # and a little at the bottom
    views = random_views(images, torch.Generator().manual_seed(0)).mean(1)
    assert views.shape == (64, 64, 64)
    assert (views[:, :, 48:].mean((1, 2)) > views[:, :, :16].mean((1, 2))).all()
    assert (views[:, 48:].mean((1, 2)) > views[:, :16].mean((1, 2))).all()
    assert len({round(float(view.mean()), 2) for view in views}) > 50


def test_training_keeps_the_zeros_and_the_report_says_so(work_dir, checkpoint, capsys):
    assert load_tool('demo_report').main([str(work_dir)]) == 0
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
    picture = cv2.imread(str(work_dir / 'demo.png'))
    assert picture.shape[0] > 500
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
    text = CONFIG.read_text().replace('../', f'{REPOSITORY}/configs/')
    (tmp_path / 'finetune/config.py').write_text(text)
    with pytest.raises(UsageError, match='holds no checkpoint yet'):
        demo_report(tmp_path)


def test_chosen_scenes_show_many_classes():
    classes = [{1, 2}, {1, 2, 3}, {3}, {4, 5}, set(), {1, 2, 3}]
    assert choose_scenes(classes, 1) == [1]
    assert choose_scenes(classes, 2) == [1, 3]
    assert choose_scenes(classes, 3) == [1, 3, 5]
    assert choose_scenes(classes, 9) == [0, 1, 2, 3, 4, 5]


def test_paint_shows_classes_and_leaves_the_rest_dark():
    photo = np.full((1, 4, 3), 200, np.uint8)
    colours = np.array([[255, 255, 255], [250, 0, 0]])
    painted = paint(photo, np.array([[0, 1, 255, 7]]), colours)
    assert painted[0, 1, 0] > 200
    assert painted[0, 1, 1] < 20
    assert (painted[0, [0, 2, 3]] == 80).all()
    assert report(torch.nn.Identity()).total.total == 0
