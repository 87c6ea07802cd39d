"""Missing, damaged, empty and odd data: an error that names the file, or training goes on."""

from __future__ import annotations

import copy
import json
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from torch import nn
from torch._utils import ExceptionWrapper

from mmsw.apis import UsageError, build_runner, build_test_runner, load_config, register_toolbox
from mmsw.apis.cli import run_reporting_errors
from mmsw.apis.dataset_checks import check_dataset
from mmsw.datasets import DataError, LoadValidAnnotations, LoadValidImageFromFile
from mmsw.datasets.coco_annotations import category_names, explain_coco_file
from mmsw.datasets.loading import is_complete

ROOT = Path(__file__).resolve().parents[1]
SEGMENTOR = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'
DETECTOR = ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py'
DETECTORS = ['mask_rcnn', 'cascade_mask_rcnn', 'retinanet']
BOX = [10, 10, 40, 30]
SQUARE = [dict(id=1, name='square')]


@pytest.fixture(autouse=True)
def _plain_config_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every runner prints its config; formatting it takes longer than all the rest."""
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: repr(cfg.to_dict())))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(suffix: str, height: int = 48, width: int = 64) -> bytes:
    return cv2.imencode(suffix, picture(height, width))[1].tobytes()


def annotation(number: int, image: int, box: list[float] = BOX, category: int = 1) -> dict:
    x, y, width, height = box
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return dict(
        id=number, image_id=image, bbox=box, area=width * height, iscrowd=0,
        category_id=category, segmentation=[polygon],
    )  # fmt: skip


def images_of(*sizes: tuple[int, int]) -> list[dict]:
    return [
        dict(id=index, file_name=f'{index}.jpg', height=height, width=width)
        for index, (height, width) in enumerate(sizes)
    ]


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes two splits in COCO format and returns their folder; a part of None is left out."""

    def write(
        split: str = 'train', sizes: tuple = ((64, 96), (64, 96)), text: str | None = None, **parts
    ) -> Path:
        root = tmp_path / 'coco'
        whole = dict(
            images=images_of(*sizes),
            annotations=[annotation(index, index) for index in range(len(sizes))],
            categories=SQUARE,
        )
        for name in ('train', 'val'):
            (root / 'annotations').mkdir(parents=True, exist_ok=True)
            (root / name).mkdir(exist_ok=True)
            for index, size in enumerate(sizes):
                cv2.imwrite(str(root / name / f'{index}.jpg'), picture(*size))
            everything = {**whole, **(parts if name == split else {})}
            everything = {key: value for key, value in everything.items() if value is not None}
            path = root / 'annotations' / f'{name}.json'
            path.write_text(json.dumps(everything) if text is None or name != split else text)
        return root

    return write


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """Two images with label maps per split in the layout of ADE20K."""
    root = tmp_path / 'ade'
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for index in range(2):
            cv2.imwrite(str(root / 'images' / split / f'{index}.jpg'), picture(70, 90))
            labels = np.random.randint(0, 151, (70, 90), dtype=np.uint8)
            cv2.imwrite(str(root / 'annotations' / split / f'{index}.png'), labels)
    return root


def checked_loading(cfg: Config) -> Config:
    """The config with the loaders of this project in all pipelines."""
    names = {
        'LoadImageFromFile': 'LoadValidImageFromFile',
        'LoadAnnotations': 'LoadValidAnnotations',
    }
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = cfg[loader].dataset
        for step in (dataset.get('dataset') or dataset).pipeline:
            step['type'] = names.get(step['type'], step['type'])
    return cfg


# Files and formats


def test_end_marks() -> None:
    jpeg, png = encoded('.jpg'), encoded('.png')
    thumbnail = b'\xff\xe1' + (2 + len(jpeg)).to_bytes(2, 'big') + jpeg  # with an end mark
    with_thumbnail = jpeg[:2] + thumbnail + jpeg[2:]
    for whole in (jpeg, png, with_thumbnail, jpeg + bytes(99), b'\xff\xd8\xff\xff' + jpeg[3:]):
        assert is_complete(whole)
    for content, cuts in ((jpeg, (4, 30, 300)), (png, (20, 300)), (with_thumbnail, (-2, -300))):
        assert not any(is_complete(content[:cut]) for cut in cuts)
    assert is_complete(b'BM' + bytes(10))  # other formats are for their decoders


BROKEN = {
    'folder': (None, r'cannot be read \(IsADirectoryError'),
    'empty.jpg': (b'', r'is empty \(0 bytes\)'),
    'page.jpg': (b'<html>not found</html>', r"starting with b'<html>no'\) is no picture"),
    'noise.jpg': (b'\xff\xd8\xff\xda' + bytes(30) + b'\xff\xd9', 'is no picture'),
    'cut.jpg': (encoded('.jpg')[:900], 'is cut off: it ends after 900 bytes'),
    'cut.png': (encoded('.png')[:900], 'is cut off: it ends after 900 bytes'),
    'line.png': (encoded('.png', 1, 1001), 'is 1001 pixels wide and 1 high; .* factor of 1000'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_image_files_are_named(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=f'image file {path} .*{message}') as caught:
        LoadValidImageFromFile().transform(dict(img_path=str(path)))
    assert '\n' not in str(caught.value)
    skipping = LoadValidImageFromFile(ignore_empty=True)
    assert skipping.transform(dict(img_path=str(path))) is None


def test_missing_image_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'absent\.jpg does not exist'):
        LoadValidImageFromFile()(dict(img_path=tmp_path / 'absent.jpg'))


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp'])
def test_good_images_load_as_in_mmcv(suffix: str, tmp_path: Path) -> None:
    path = str(tmp_path / f'good{suffix}')
    Path(path).write_bytes(encoded(suffix))
    for options in ({}, dict(to_float32=True), dict(color_type='grayscale')):
        expected = mmcv.transforms.LoadImageFromFile(**options)(dict(img_path=path))
        found = LoadValidImageFromFile(**options)(dict(img_path=path, height=48, width=64))
        np.testing.assert_array_equal(found['img'], expected['img'], strict=True)
        assert found['img_shape'] == found['ori_shape'] == expected['ori_shape']


def test_cut_image_can_be_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / 'cut.jpg'
    path.write_bytes(encoded('.jpg')[:3000])
    loader = LoadValidImageFromFile(allow_truncated=True)
    assert loader(dict(img_path=str(path)))['img'].shape == (48, 64, 3)
    assert 'allow_truncated=True' in repr(loader)


def test_size_must_be_the_one_of_the_annotations(tmp_path: Path) -> None:
    path = tmp_path / 'turned.jpg'
    path.write_bytes(encoded('.jpg', 48, 64))
    with pytest.raises(DataError, match=r'turned\.jpg is 64 pixels wide and 48 high, .* 48 and 64'):
        LoadValidImageFromFile()(dict(img_path=str(path), height=64, width=48))


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine'])
def test_loaders_are_found_from_every_scope(scope: str) -> None:
    registry = pytest.importorskip(f'{scope}.registry').TRANSFORMS
    with DefaultScope.overwrite_default_scope(scope):
        for transforms in (registry, TRANSFORMS, mmcv.transforms.TRANSFORMS):
            image = transforms.build(dict(type='LoadValidImageFromFile'))
            assert type(image) is LoadValidImageFromFile
            if scope != 'mmengine':
                labels = transforms.build(dict(type='LoadValidAnnotations'))
                assert type(labels.loader).__module__.startswith(f'{scope}.')
                assert type(pickle.loads(pickle.dumps(labels))) is LoadValidAnnotations


# Label maps


def segmentation_sample(folder: Path, labels: np.ndarray | bytes | None, shape=(20, 30)) -> dict:
    path = folder / 'labels.png'
    if isinstance(labels, bytes):
        path.write_bytes(labels)
    elif labels is not None:
        cv2.imwrite(str(path), labels)
    return dict(
        img_path='some.jpg', seg_map_path=str(path), ori_shape=shape, seg_fields=[],
        reduce_zero_label=True, label_map=None,
    )  # fmt: skip


@pytest.fixture
def label_loader() -> LoadValidAnnotations:
    register_toolbox(load_config(SEGMENTOR))
    with DefaultScope.overwrite_default_scope('mmseg'):
        return LoadValidAnnotations()


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (None, 'does not exist'),
        (b'', 'cannot be loaded'),
        (b'<html>', 'cannot be loaded'),
        (cv2.imencode('.png', picture(20, 30)[..., 0])[1].tobytes()[:300], 'cannot be loaded'),
        (np.zeros((20, 31), np.uint8), 'is 31 pixels wide and 20 high, the image 30 and 20'),
        (np.zeros((30, 20), np.uint8), 'is 20 pixels wide and 30 high, the image 30 and 20'),
        (np.zeros((20, 30, 3), np.uint8), r'has shape \(20, 30, 3\), expected one class index'),
    ],
)
def test_broken_label_maps_are_named(
    labels: np.ndarray | bytes | None, message: str, label_loader, tmp_path: Path
) -> None:
    sample = segmentation_sample(tmp_path, labels)
    with pytest.raises(
        DataError, match=rf'label map .*labels\.png of image some\.jpg {message}'
    ) as caught:
        label_loader(sample)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('shape', [(20, 30), (1, 30), (20, 1)])
def test_good_label_maps(shape: tuple[int, int], label_loader, tmp_path: Path) -> None:
    labels = np.random.randint(0, 151, shape, dtype=np.uint8)
    loaded = label_loader(segmentation_sample(tmp_path, labels, shape))
    np.testing.assert_array_equal(loaded['gt_seg_map'], labels - 1, strict=True)  # 0 becomes 255


def test_objects_without_masks_are_named() -> None:
    register_toolbox(load_config(DETECTOR))
    with DefaultScope.overwrite_default_scope('mmdet'):
        loader = LoadValidAnnotations(with_bbox=True, with_mask=True)
    box = dict(bbox=[0, 0, 9, 9], bbox_label=0, ignore_flag=0)
    sample = dict(img_path='some.jpg', ori_shape=(20, 30), instances=[box])
    with pytest.raises(DataError, match=r"annotations of image some\.jpg .*KeyError: 'mask'"):
        loader(copy.deepcopy(sample))
    box['mask'] = [[0, 0, 9, 0, 9, 9]]
    loaded = loader(sample)
    assert (len(loaded['gt_bboxes']), len(loaded['gt_masks'])) == (1, 1)


# Annotation files


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', r'is empty \(0 bytes\)'),
        ('{"images": [', 'is no valid JSON .* it may be cut off'),
        ('[1]', 'holds a list instead of a dict'),
        ('{"images": [], "categories": 3}', 'lacks the list of annotations and that of categories'),
    ],
)
def test_broken_annotation_files(text: str, message: str, coco, tmp_path: Path) -> None:
    root = coco(text=text)
    runner = build_runner(DETECTOR, tmp_path / 'work', data_root=root)
    with pytest.raises(DataError, match=rf'annotations/train\.json {message}'):
        runner.train()
    coco(split='val', text=text)
    runner = build_runner(DETECTOR, tmp_path / 'work', data_root=root)
    with pytest.raises(DataError, match=rf'annotations/val\.json {message}'):
        runner.train()


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (dict(images=[]), r'train\.json lists no image'),
        (dict(annotations=None), r'train\.json lacks the list of annotations'),
        (dict(annotations=[]), r'has no annotation: .*train\.json lists images, but no object'),
        (dict(images=[dict(id=0, file_name='0.jpg')]), r'has in images\[0\] no height, width'),
        (
            dict(annotations=[dict(annotation(0, 0), bbox=[1, 2, 3])]),
            r'has in annotations\[0\] the bbox \[1, 2, 3\] instead of four numbers',
        ),
        (
            dict(annotations=[annotation(0, 0), annotation(0, 1)]),
            r'annotations\[1\] the id 0 a second time',
        ),
        (
            dict(annotations=[annotation(0, 0, [10, 10, 0, 30])]),
            r"no object of \['square'\] with an area inside of its image",
        ),
        (dict(categories=[dict(id=1, name='circle')]), r"lacks \['square'\].*are \['circle'\]"),
    ],
)
def test_annotations_that_nothing_can_be_learned_from(
    parts: dict, message: str, coco, tmp_path: Path
) -> None:
    runner = build_runner(DETECTOR, tmp_path / 'work', data_root=coco(**parts))
    with pytest.raises(DataError, match=message):
        runner.train()


def test_filter_that_leaves_nothing(coco, tmp_path: Path) -> None:
    """mmdet would end after no iteration, or wait for ever under an infinite sampler."""
    options = {
        'train_dataloader.dataset.dataset.filter_cfg': dict(filter_empty_gt=True),
        'train_dataloader.sampler.type': 'InfiniteSampler',
    }
    runner = build_runner(
        DETECTOR, tmp_path / 'work', cfg_options=options, data_root=coco(annotations=[])
    )
    with pytest.raises(
        DataError, match=r"train_dataloader has no image: filter_cfg=\{'filter_empty_gt': True\} .*"
    ):
        runner.train()


def test_validation_without_truth(coco, tmp_path: Path) -> None:
    runner = build_runner(DETECTOR, tmp_path / 'work', data_root=coco(split='val', annotations=[]))
    with pytest.raises(DataError, match=r'val_dataloader has no annotation: .*val\.json lists'):
        runner.train()


def test_predicting_without_truth(coco, tmp_path: Path) -> None:
    root = coco(split='val', annotations=None)
    checkpoint = tmp_path / 'some.pth'
    register_toolbox(load_config(DETECTOR))
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.save(MODELS.build(load_config(DETECTOR).model).state_dict(), checkpoint)
    call = dict(work_dir=tmp_path / 'work', data_root=root)
    with pytest.raises(DataError, match=r'val\.json lacks the list of annotations.*format_only'):
        build_test_runner(DETECTOR, checkpoint, **call).test()
    out = {
        'test_evaluator.format_only': True,
        'test_evaluator.outfile_prefix': str(tmp_path / 'out'),
    }
    build_test_runner(DETECTOR, checkpoint, cfg_options=out, **call).test()
    assert (tmp_path / 'out.bbox.json').is_file()


def test_classes_must_have_the_order_of_the_file(coco, tmp_path: Path) -> None:
    root = coco(categories=[dict(id=7, name='circle'), dict(id=1, name='square')])
    register_toolbox(load_config(DETECTOR))
    for classes, fits in (
        (('circle', 'square'), True),
        (('square',), True),
        (('square', 'circle'), False),
        (('circle', 'square', 'star'), False),
    ):
        cfg = load_config(DETECTOR, data_root=root).train_dataloader.dataset.dataset
        cfg.metainfo.classes = classes
        with DefaultScope.overwrite_default_scope('mmdet'):
            dataset = DATASETS.build(cfg)
        if fits:
            check_dataset(dataset, 'train_dataloader')
            continue
        with pytest.raises(DataError, match=r"categories of .*train\.json: .*'circle', 'square'\]"):
            check_dataset(dataset, 'train_dataloader')


def test_category_names_are_found_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    names = dict(categories=[dict(id=3, name='ü'), dict(id=1, name='b')])
    notes = dict(info='"categories": [1]', images=[dict(categories=[4])])
    for whole in ({**notes, **names}, {**names, **notes}):
        for text in (json.dumps(whole), json.dumps(whole, indent=1, ensure_ascii=False)):
            path.write_text(text, encoding='utf-8')
            assert category_names(path) == ['ü', 'b']
    for text in ('', '{}', '{"categories": [', '[]'):
        path.write_text(text)
        assert category_names(path) is None
    assert category_names(tmp_path / 'absent.json') is None


def test_explanation_of_references(coco) -> None:
    path = coco() / 'annotations' / 'train.json'
    assert explain_coco_file(path) is None
    coco(annotations=[annotation(0, 99)])
    assert explain_coco_file(path) == 'has in annotations[0] an unknown image_id 99'
    coco(annotations=[annotation(0, 0, category=9)])
    assert explain_coco_file(path) == 'has in annotations[0] an unknown category_id 9'
    assert explain_coco_file(path.parent / 'absent.json') == 'does not exist'


def test_other_errors_of_data_sets_stay_what_they_are(coco, tmp_path: Path) -> None:
    runner = build_runner(DETECTOR, tmp_path / 'work', data_root=coco())
    runner._train_dataloader['dataset']['times'] = None
    runner._train_dataloader['dataset']['dataset']['strange'] = 1
    with pytest.raises(TypeError, match='strange'):
        runner.train()


def test_missing_file_of_an_evaluator(coco, tmp_path: Path) -> None:
    path = tmp_path / 'elsewhere.json'
    options = {'val_evaluator.ann_file': str(path)}
    with pytest.raises(UsageError, match=rf'val_evaluator needs {path}, which does not exist'):
        build_runner(DETECTOR, tmp_path / 'work', cfg_options=options, data_root=coco())


def test_folder_without_images(ade: Path, tmp_path: Path) -> None:
    """An infinite sampler over nothing would wait for ever."""
    for path in (ade / 'images' / 'training').iterdir():
        path.unlink()
    runner = build_runner(SEGMENTOR, tmp_path / 'work', data_root=ade)
    with pytest.raises(
        DataError, match=r'train_dataloader has no image: no file \*\.jpg in .*images/training'
    ):
        runner.train()


# What a user sees


def test_error_of_a_worker_is_one_line(capsys: pytest.CaptureFixture) -> None:
    def fail_in_worker() -> None:
        try:
            try:
                raise OSError('first: the cause')
            except OSError as error:
                raise DataError('image file a: b.jpg is cut off') from error
        except DataError:
            wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
        wrapped.reraise()

    assert run_reporting_errors(fail_in_worker) == 2
    assert capsys.readouterr().err == 'error: image file a: b.jpg is cut off\n'


def test_training_stops_at_a_broken_file(
    ade: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Through the tool, with a worker process."""
    broken = ade / 'annotations' / 'training' / '1.png'
    broken.unlink()
    main = runpy.run_path(str(ROOT / 'tools' / 'train.py'))['main']
    step = 'train_dataloader.dataset.pipeline.'
    options = [f'{step}0.type=LoadValidImageFromFile', f'{step}1.type=LoadValidAnnotations']
    places = ['--data-root', str(ade), '--work-dir', str(tmp_path / 'work')]
    code = main(
        [str(SEGMENTOR), *places, '--cfg-options', 'train_dataloader.num_workers=1', *options]
    )
    assert code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f'error: label map {broken} of image ')
    assert 'does not exist' in line


# Odd images that are no error


def mini_model(cfg: Config) -> nn.Module:
    register_toolbox(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))


def samples_of(cfg: Config, loader: str) -> list[dict]:
    register_toolbox(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(copy.deepcopy(cfg[loader].dataset))
        return [dataset[index] for index in range(len(dataset))]


def train_step_losses(model: nn.Module, samples: list[dict]) -> dict[str, torch.Tensor]:
    data = model.train().data_preprocessor(pseudo_collate(samples), True)
    losses, logged = model.parse_losses(model(**data, mode='loss'))
    losses.backward()
    for name, param in model.named_parameters():
        assert param.grad is None or param.grad.isfinite().all(), name
    return logged


def demo_detector(name: str, root: Path) -> Config:
    """A detector of the demonstration, smaller still, on other data."""
    cfg = load_config(ROOT / 'configs' / 'demo' / f'{name}_sw_mini_scenes.py', data_root=root)
    for loader, split in (('train_dataloader', 'train'), ('val_dataloader', 'val')):
        cfg[loader].dataset.update(
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=('square',)),
        )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.model.backbone.arch = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    cfg.model.backbone.big_kernels = (7, 7, 5, 3)
    cfg.model.neck.in_channels = [8] * len(cfg.model.neck.in_channels)
    return checked_loading(cfg)


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_learn_from_images_without_objects(name: str, coco) -> None:
    cfg = demo_detector(name, coco(annotations=[annotation(0, 1)]))
    bare, full = samples_of(cfg, 'train_dataloader')
    assert len(bare['data_samples'].gt_instances) == 0
    model = mini_model(cfg)
    for batch in ([bare], [bare, copy.deepcopy(bare)], [bare, full]):
        losses = train_step_losses(model, copy.deepcopy(batch))
        assert all(value.isfinite().all() for value in losses.values()), losses
        assert losses['loss'] > 0


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_take_images_of_one_pixel_width(name: str, coco) -> None:
    sizes = ((60, 1), (1, 60), (64, 96))
    boxes = [[0, 0, 1, 60], [0, 0, 60, 1], BOX]
    root = coco(sizes=sizes, annotations=[annotation(i, i, box) for i, box in enumerate(boxes)])
    cfg = demo_detector(name, root)
    # With 0, as in mmdet's Cascade R-CNN, an image narrower than every anchor has none to learn
    # from and mmdet stops; filter_cfg=dict(min_size=32), as in its COCO configs, skips such images.
    if 'rpn' in cfg.model.train_cfg:
        cfg.model.train_cfg.rpn.allowed_border = -1
    model = mini_model(cfg)
    losses = train_step_losses(model, samples_of(cfg, 'train_dataloader'))
    assert all(value.isfinite().all() for value in losses.values()), losses
    model.eval()
    for sample, size in zip(samples_of(cfg, 'val_dataloader'), sizes, strict=True):
        with torch.no_grad():
            (result,) = model.test_step(pseudo_collate([sample]))
        assert result.ori_shape == size
        assert result.pred_instances.bboxes.isfinite().all()

    cfg.train_dataloader.dataset.filter_cfg = dict(min_size=32)
    (kept,) = samples_of(cfg, 'train_dataloader')
    assert kept['data_samples'].ori_shape == (64, 96)


@pytest.mark.parametrize('mode', ['slide', 'whole'])
@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_segmentors_take_images_of_one_pixel_width(version: str, mode: str, ade: Path) -> None:
    for split in ('training', 'validation'):
        for index, shape in enumerate(((50, 1), (1, 50))):
            cv2.imwrite(str(ade / 'images' / split / f'{index}.jpg'), picture(*shape))
            labels = np.random.randint(1, 151, shape, dtype=np.uint8)
            cv2.imwrite(str(ade / 'annotations' / split / f'{index}.png'), labels)
    backbone = dict(version=version, big_kernels=(7, 7, 5, 5))
    cfg = load_config(SEGMENTOR, {'model.backbone': backbone}, ade)
    if mode == 'whole':
        cfg.model.test_cfg = dict(mode='whole')
    checked_loading(cfg)
    model = mini_model(cfg)
    losses = train_step_losses(model, samples_of(cfg, 'train_dataloader'))
    assert all(value.isfinite().all() for value in losses.values()), losses
    model.eval()
    for sample, shape in zip(samples_of(cfg, 'val_dataloader'), ((50, 1), (1, 50)), strict=True):
        with torch.no_grad():
            (result,) = model.test_step(pseudo_collate([sample]))
        assert result.pred_sem_seg.data.shape == (1, *shape)
        assert result.gt_sem_seg.data.shape == (1, *shape)
