"""Data sets that nothing can be learned or measured from are refused before training."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from data_helpers import DETECTOR, ROOT, SEGMENTOR, annotation
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch._utils import ExceptionWrapper

from mmsw.apis import UsageError, build_runner, build_test_runner, load_config, register_toolbox
from mmsw.apis.checks.datasets import check_dataset
from mmsw.apis.cli import run_reporting_errors
from mmsw.datasets import DataError
from mmsw.datasets.coco_annotations import category_names, explain_coco_file

pytestmark = pytest.mark.usefixtures('plain_config_text')


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
            r'no object of square with an area inside of its image',
        ),
        (dict(categories=[dict(id=1, name='circle')]), r'lacks square.*are circle'),
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
        with pytest.raises(
            DataError, match=r'categories of .*train\.json: .*categories are circle, square'
        ):
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
    nested = {'images': [{'info': {'categories': []}}], 'categories': [{'id': 1, 'name': 'a'}]}
    path.write_text(json.dumps(nested))
    assert category_names(path) == ['a']
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
    broken = ade / 'images' / 'training' / '1.jpg'
    broken.write_bytes(broken.read_bytes()[:900])
    main = runpy.run_path(str(ROOT / 'tools' / 'train.py'))['main']
    places = ['--data-root', str(ade), '--work-dir', str(tmp_path / 'work')]
    code = main([str(SEGMENTOR), *places, '--cfg-options', 'train_dataloader.num_workers=1'])
    assert code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f'error: image file {broken} is cut off')
