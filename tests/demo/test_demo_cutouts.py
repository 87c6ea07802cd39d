"""What the pretraining of the demonstration sees, and how it is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, METRICS, MODELS

from mmsw.datasets import DataError
from mmsw.demo import DemoCutouts, cutout_preprocessor
from mmsw.demo.cutout_preprocessor import plain_views, random_views

SIDE, MARGIN = 64, 1.6
TRAIN = dict(
    type='DemoCutouts',
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
)
PREPROCESSOR = dict(
    type='DemoCutoutPreprocessor',
    side=SIDE,
    margin=MARGIN,
    mean=[1.0, 2.0, 3.0],
    std=[1.0, 2.0, 4.0],
)


@pytest.fixture(scope='module')
def cutouts(data: Path) -> DemoCutouts:
    return DATASETS.build(dict(TRAIN, data_root=data / 'coco'))


def test_cutouts_are_the_annotated_objects(data, cutouts):
    annotations = json.loads((data / 'coco/annotations/instances_train2017.json').read_text())
    expected = [item['category_id'] - 1 for item in annotations['annotations']]
    objects = cutouts.labels < 10
    assert sorted(cutouts.labels[objects]) == sorted(expected)
    assert 0 < (~objects).sum() <= 6
    assert cutouts.metainfo['classes'][-2:] == ('digit 9', 'background')
    first = annotations['annotations'][0]
    item = cutouts[0]
    assert len(cutouts) == len(cutouts.labels) == len(cutouts.images)
    assert item['labels'] == first['category_id'] - 1
    assert (item['inputs'].dtype, item['inputs'].shape) == (torch.uint8, (3, 102, 102))
    x, y, width, height = first['bbox']
    scene = cv2.imread(str(data / 'coco/train2017/000000000001.jpg'))
    view = plain_views(item['inputs'][None].float(), SIDE, MARGIN)[0]
    middle = view[:, 20:-20, 20:-20].mean((1, 2)).numpy()
    centre_x, centre_y = x + width // 2, y + height // 2
    reach = round(max(width, height) * 1.3 * 12 / 64)
    around = scene[centre_y - reach : centre_y + reach, centre_x - reach : centre_x + reach]
    assert np.abs(middle - around.mean((0, 1))).max() < 12


def test_only_the_background_depends_on_the_seed(data, cutouts):
    other = DATASETS.build(dict(TRAIN, data_root=data / 'coco', seed=1))
    objects, others = cutouts.labels < 10, other.labels < 10
    assert np.array_equal(cutouts.images[objects], other.images[others])
    assert not np.array_equal(cutouts.images[~objects], other.images[~others])


def test_data_that_cannot_be_used_are_named(data, tmp_path):
    with pytest.raises(DataError, match=r'instances_train2017\.json does not exist'):
        DATASETS.build(dict(TRAIN, data_root=tmp_path))
    shutil.copytree(data / 'coco', tmp_path / 'coco')
    image = tmp_path / 'coco/train2017/000000000002.jpg'
    image.write_bytes(b'no image')
    with pytest.raises(DataError, match=r'000000000002\.jpg cannot be read; make .* --force'):
        DATASETS.build(dict(TRAIN, data_root=tmp_path / 'coco'))
    path = tmp_path / 'coco' / TRAIN['ann_file']
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r'instances_train2017\.json is no valid JSON'):
        DATASETS.build(dict(TRAIN, data_root=tmp_path / 'coco'))


def test_random_views_never_mirror():
    images = torch.zeros(64, 3, 102, 102)
    images[..., 51:] += 100  # bright to the right
    images[:, :, 51:] += 60  # and a little at the bottom
    views = random_views(images, SIDE, MARGIN, torch.Generator().manual_seed(0)).mean(1)
    assert views.shape == (64, 64, 64)
    assert (views[:, :, 48:].mean((1, 2)) > views[:, :, :16].mean((1, 2))).all()
    assert (views[:, 48:].mean((1, 2)) > views[:, :16].mean((1, 2))).all()
    assert len({round(float(view.mean()), 2) for view in views}) > 50


@pytest.mark.parametrize('bgr_to_rgb', [False, True])
def test_preprocessor_shows_the_middle_normalised(bgr_to_rgb):
    preprocessor = MODELS.build(dict(PREPROCESSOR, bgr_to_rgb=bgr_to_rgb))
    colours = torch.tensor([10, 20, 30], dtype=torch.uint8)
    images = colours.view(1, 3, 1, 1).repeat(2, 1, 102, 102)
    images[:, :, :15] = 255  # outside of what is seen
    batch = {'inputs': images, 'labels': torch.tensor([3, 4])}
    seen = preprocessor(batch)
    assert set(seen) == {'inputs', 'labels'}
    assert seen['labels'].tolist() == [3, 4]
    assert seen['inputs'].shape == (2, 3, 64, 64)
    first, middle, last = (30, 20, 10) if bgr_to_rgb else (10, 20, 30)
    expected = torch.tensor([first - 1, (middle - 2) / 2, (last - 3) / 4])
    torch.testing.assert_close(seen['inputs'], expected.view(1, 3, 1, 1).expand(2, 3, 64, 64))
    assert batch['inputs'] is images


def test_views_depend_on_the_seed_and_go_on_with_the_state_dict():
    batch = {'inputs': torch.randint(0, 256, (4, 3, 102, 102), dtype=torch.uint8)}

    def build(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return MODELS.build(PREPROCESSOR)

    def views(preprocessor: torch.nn.Module) -> torch.Tensor:
        before = torch.get_rng_state()
        seen = preprocessor(batch, training=True)['inputs']
        assert torch.equal(torch.get_rng_state(), before)
        return seen

    one, same, other = build(1), build(1), build(2)
    first, second = views(one), views(one)
    assert not torch.equal(first, second)
    assert torch.equal(views(same), first)
    assert not torch.equal(views(other), first)
    other.load_state_dict(same.state_dict())
    assert torch.equal(views(other), second)


def test_each_process_draws_views_of_its_own(monkeypatch):
    torch.manual_seed(0)
    preprocessor = MODELS.build(PREPROCESSOR)
    start = preprocessor.random_state.clone()
    images = torch.randint(0, 256, (3, 3, 102, 102), dtype=torch.uint8)
    views, states = [], []
    for rank in (0, 1, 2, 1):
        monkeypatch.setattr(cutout_preprocessor, 'get_rank', lambda rank=rank: rank)
        preprocessor.random_state.copy_(start)
        seen = [preprocessor({'inputs': images}, training=True)['inputs'] for _ in range(2)]
        views.append(seen)
        states.append(preprocessor.random_state.clone())
    assert all(torch.equal(state, states[0]) for state in states), 'a resumed run would differ'
    first, second, third, again = views
    assert torch.equal(second[0], again[0])
    assert torch.equal(second[1], again[1])
    for one, other in ((first, second), (first, third), (second, third)):
        assert not torch.equal(one[0], other[0])
    assert not torch.equal(second[0], second[1])
    generator = torch.Generator()
    generator.set_state(start)
    expected = random_views(images.float(), SIDE, MARGIN, generator)
    plain = cutout_preprocessor.ImgDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 4.0])
    assert torch.equal(first[0], plain({'inputs': expected})['inputs']), 'a single process changed'


def test_accuracy_is_the_share_of_right_labels():
    metric = METRICS.build(dict(type='DemoLabelAccuracy'))
    for labels in ([(1, 1), (2, 0), (3, 3)], [(0, 0)], [(5, 4), (4, 5), (9, 9)]):
        metric.process({}, [{'pred_label': p, 'gt_label': g} for p, g in labels])
    assert metric.evaluate(size=7) == {'accuracy': 4 / 7}
    prefixed = METRICS.build(dict(type='DemoLabelAccuracy', prefix='top1'))
    prefixed.process({}, [{'pred_label': 1, 'gt_label': 1}])
    assert prefixed.evaluate(size=1) == {'top1/accuracy': 1.0}


def test_accuracy_of_nothing_is_an_error():
    metric = METRICS.build(dict(type='DemoLabelAccuracy'))
    with pytest.raises(DataError, match='got no sample to judge, expected at least one'):
        metric.compute_metrics([])


def test_classifier_reads_the_last_map():
    arch = dict(depths=[1, 1, 1, 1], dims=[4, 4, 8, 8])
    backbone = dict(type='ShiftWiseNet', arch=arch, big_kernels=(7, 7, 5, 3))
    model = MODELS.build(
        dict(type='DemoClassifier', backbone=backbone, in_channels=8, num_classes=5)
    )
    images, labels = torch.randn(3, 3, 64, 64), torch.tensor([0, 4, 2])
    model.eval()
    logits = model(images)
    expected = model.head(model.backbone(images)[3].mean((2, 3)))
    torch.testing.assert_close(logits, expected)
    loss = model(images, labels, mode='loss')['loss']
    torch.testing.assert_close(loss, -logits.log_softmax(1)[range(3), labels].mean())
    predictions = model(images, labels, mode='predict')
    assert [item['pred_label'] for item in predictions] == logits.argmax(1).tolist()
    assert [item['gt_label'] for item in predictions] == [0, 4, 2]
    with pytest.raises(ValueError, match=r"mode must be .* got 'train'"):
        model(images, labels, mode='train')


def test_narrow_networks_start_with_faint_arms():
    arch = dict(depths=[1, 1, 1, 1], dims=[4, 4, 8, 8])
    net = MODELS.build(
        dict(
            type='ShiftWiseNet',
            arch=arch,
            big_kernels=(7, 7, 5, 3),
            init_cfg=dict(type='DemoNarrowInit'),
        )
    )
    net.init_weights()
    layer = net.stages[2][0]
    for norm, scale in (('norm_h', 0.1), ('norm_v', 0.1)):
        assert (getattr(layer.shift_wise, norm).weight == scale).all()
    width = layer.pointwise_conv1.weight.shape[1]
    assert layer.pointwise_conv1.weight.std().item() == pytest.approx((2 / width) ** 0.5, rel=0.3)
