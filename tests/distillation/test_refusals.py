"""What does not fit is said in one line, before the training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from lessons import detector, make_teacher, segmentor, training
from mmengine.runner import Runner

from mmsw.apis import build_runner
from mmsw.checkpoint import load_checkpoint_file
from mmsw.engine import DistillationHook
from mmsw.errors import CheckpointError, MmswError, UsageError

FILES = dict(config='config.py', checkpoint='final.pth')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (
            dict(teacher='final.pth', logits={}),
            'teacher must be dict(config=FILE, checkpoint=FILE)',
        ),
        (dict(teacher=dict(config='a.py'), logits={}), 'teacher must be dict('),
        (dict(teacher=FILES), 'nothing is distilled: give logits'),
        (dict(teacher=FILES, logits=3), 'logits must be a dict of weight, temperature, over'),
        (dict(teacher=FILES, logits=dict(tau=1)), 'logits has no setting tau; expected weight'),
        (dict(teacher=FILES, logits=dict(weight=-1)), 'logits.weight must be finite and not nega'),
        (dict(teacher=FILES, logits=dict(weight='1')), "logits.weight must be a number, got '1'"),
        (dict(teacher=FILES, logits=dict(temperature=0)), 'temperature must be above 0, got 0'),
        (dict(teacher=FILES, logits=dict(over='time')), "over must be one of ['space', 'classes']"),
        (dict(teacher=FILES, features=[]), 'features must name layers, such as'),
        (dict(teacher=FILES, features=dict(weight=1)), 'features must name layers, such as'),
        (dict(teacher=FILES, features='neck'), 'features must name layers, such as'),
        (dict(teacher=FILES, features=dict(layer=['neck'])), 'no setting layer; expected layers'),
        (
            dict(teacher=FILES, features=dict(layers=['neck'], weight=float('nan'))),
            'features.weight must be finite',
        ),
    ],
)
def test_settings(settings, message) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        DistillationHook(**settings)


@pytest.fixture(scope='module')
def segmentor_run(tmp_path_factory, plain_config_text) -> Runner:
    return _at_the_start(training(tmp_path_factory.mktemp('run'), segmentor()))


@pytest.fixture(scope='module')
def detector_run(tmp_path_factory, plain_config_text) -> Runner:
    return _at_the_start(training(tmp_path_factory.mktemp('run'), detector()))


def _at_the_start(cfg) -> Runner:
    runner = build_runner(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    return runner


def refused(runner: Runner, error: type[MmswError] = UsageError, **settings) -> str:
    with pytest.raises(error) as info:
        DistillationHook(**settings).before_run(runner)
    assert '\n' not in str(info.value)
    return str(info.value)


def test_two_teachers(of_segmentor, tmp_path) -> None:
    hook = dict(type='DistillationHook', teacher=of_segmentor, logits={})
    with pytest.raises(UsageError, match='more than one DistillationHook'):
        build_runner(training(tmp_path, segmentor(), [hook, hook])).train()


def test_missing_files(segmentor_run, of_segmentor, tmp_path) -> None:
    for name in ('config', 'checkpoint'):
        files = {**of_segmentor, name: str(tmp_path / 'absent.x')}
        text = refused(segmentor_run, teacher=files, logits={})
        assert text.startswith(f'{name} of the teacher {tmp_path}/absent.x does not exist')


def test_damaged_files(segmentor_run, of_segmentor, tmp_path) -> None:
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(Path(of_segmentor['checkpoint']).read_bytes()[:1000])
    files = dict(of_segmentor, checkpoint=str(cut))
    assert 'cut.pth' in refused(segmentor_run, CheckpointError, teacher=files, logits={})
    wrong = tmp_path / 'wrong.py'
    for text, message in (
        ('model = dict(', 'cannot be read: SyntaxError'),
        ('nothing = 1', 'has no model'),
        ("model = dict(type='EncoderDecoder')", 'cannot be built: TypeError'),
        ("model = dict(type='Unknown')", 'cannot be built: KeyError'),
        ("model = dict(type='EncoderDecoder')\nown_data = dict(task='segmentation')", 'own_data'),
    ):
        wrong.write_text(text)
        files = dict(of_segmentor, config=str(wrong))
        assert message in refused(segmentor_run, teacher=files, logits={})


def test_a_teacher_that_diverged(segmentor_run, of_segmentor, tmp_path) -> None:
    saved = load_checkpoint_file(of_segmentor['checkpoint'])
    name = next(key for key in saved['state_dict'] if key.endswith('.weight'))
    saved['state_dict'][name] = torch.full_like(saved['state_dict'][name], float('nan'))
    torch.save(saved, tmp_path / 'nan.pth')
    files = dict(of_segmentor, checkpoint=str(tmp_path / 'nan.pth'))
    text = refused(segmentor_run, CheckpointError, teacher=files, logits={})
    assert f'nan.pth has weights that are NaN or infinite ({name})' in text


def test_checkpoint_of_another_network(segmentor_run, of_segmentor, of_detector) -> None:
    files = dict(of_segmentor, checkpoint=of_detector['checkpoint'])
    text = refused(segmentor_run, CheckpointError, teacher=files, logits={})
    assert 'does not fit the EncoderDecoder' in text


def test_another_toolbox(segmentor_run, of_detector) -> None:
    text = refused(segmentor_run, teacher=of_detector, features=['backbone'])
    assert 'is a model of mmdet, the student one of mmseg' in text


def test_another_number_of_classes(segmentor_run, tmp_path) -> None:
    teacher = make_teacher(tmp_path, segmentor(num_classes=5))
    text = refused(segmentor_run, teacher=teacher, logits={})
    assert 'the teacher has logits of 5 classes, the student of 3' in text
    DistillationHook(teacher, features=['backbone']).before_run(segmentor_run)  # no matter there


def test_other_classes(segmentor_run, tmp_path) -> None:
    teacher = make_teacher(tmp_path, segmentor(), classes=('c', 'b', 'a'))
    text = refused(segmentor_run, teacher=teacher, logits={})
    assert 'the classes of the teacher are c, b, a, those of the student a, b, c' in text


def test_logits_of_a_detector(detector_run, of_detector) -> None:
    text = refused(detector_run, teacher=of_detector, logits={})
    assert 'the student is a RetinaNet without a layer decode_head.conv_seg' in text


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(mean=[0.0, 0.0, 0.0]), 'mean [0.0, 0.0, 0.0] instead of [123.7, 116.3, 103.5]'),
        (dict(std=[1.0, 57.1, 57.4]), 'std [1.0, 57.1, 57.4] instead of [58.4, 57.1, 57.4]'),
        (dict(bgr_to_rgb=False), 'BGR to RGB False instead of True'),
        (dict(mean=None, std=None), 'mean None instead of [123.7, 116.3, 103.5]; std None'),
    ],
)
def test_other_input(segmentor_run, tmp_path, change, message) -> None:
    model = segmentor()
    model['data_preprocessor'].update(change)
    text = refused(segmentor_run, teacher=make_teacher(tmp_path, model), logits={})
    assert message in text


@pytest.mark.parametrize(
    ('layers', 'message'),
    [
        (['neck'], "the student has no layer 'neck'; the model has data_preprocessor, backbone"),
        (
            ['backbone.stages.7'],
            'backbone.stages has 0, 1; did you mean backbone.stages.1, backbone.stages.0',
        ),
        ({'backbone': 'spine'}, "the teacher has no layer 'spine'"),
        ([''], "the student has no layer ''"),
    ],
)
def test_layers_that_do_not_exist(segmentor_run, of_segmentor, layers, message) -> None:
    text = refused(segmentor_run, teacher=of_segmentor, features=dict(layers=layers))
    assert message in text


def test_heads_of_detectors(detector_run, of_detector) -> None:
    text = refused(detector_run, teacher=of_detector, features=['bbox_head.retina_cls'])
    assert 'layer bbox_head.retina_cls of the student is none of the backbone or the neck' in text
