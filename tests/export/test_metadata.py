"""What a file tells of itself: back as it was written, and anything else refused in one line."""

from __future__ import annotations

import json
import re

import pytest

from mmsw.deploy.export.image_rule import BorderRule, ImageRule, PadRule, ResizeRule
from mmsw.deploy.export.metadata import ExportMetadata
from mmsw.errors import DataError
from mmsw.version import __version__

METADATA = ExportMetadata(
    task='detection',
    classes=('a', 'Straße "x"'),
    palette=((1, 2, 3), (4, 5, 6)),
    image=ImageRule(
        3,
        resize=ResizeRule((1333, 800), None, True),
        pad=PadRule(size_divisor=32, value=(1, 2.5, 3)),
        mean=(0.1, 123.675, 1e-30),
        std=(1.0, 2.0, 3.0),
        border=BorderRule((64, 96), 32, 0.5),
        most=(64, 96),
        meta_keys=('ori_shape',),
    ),
    settings={'mask_threshold': 0.5},
    outputs=('boxes', 'scores', 'labels', 'masks'),
    batched=False,
    size=(64, 96),
    density=0.7,
)


def test_it_comes_back_as_it_was() -> None:
    assert ExportMetadata.from_text(METADATA.to_text(), 'FILE') == METADATA
    plain = ExportMetadata('segmentation', (), (), ImageRule(1), {}, ('logits',))
    assert ExportMetadata.from_text(plain.to_text(), 'FILE') == plain
    assert '\n' not in METADATA.to_text()


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        ('task', 'pose', "task is 'pose'"),
        ('classes', [1], "classes='1'"),
        ('size', [64], 'size=.* expected a list of 2'),
        ('image', [], 'image=.* an object of JSON'),
        ('image.channels', 'three', "image.channels='three', expected of the type int"),
        ('image.resize.keep_ratio', 1, 'image.resize.keep_ratio'),
        ('more', 1, 'an unknown more'),
        ('format', 'mmsw.exported_program/9', 'install a newer mmsw'),
        ('format', 'mmsw.sparsity/1', 'expected mmsw.exported_program'),
    ],
)
def test_what_does_not_fit_is_named(path: str, value: object, message: str) -> None:
    content = json.loads(METADATA.to_text())
    *parents, name = path.split('.')
    place = content
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(DataError, match=message) as error:
        ExportMetadata.from_text(json.dumps(content), 'FILE.onnx')
    assert re.match(r'FILE\.onnx cannot be used: .*export it again', str(error.value))


@pytest.mark.parametrize('name', ['task', 'classes', 'image', 'settings', 'outputs'])
def test_what_is_missing_is_named(name: str) -> None:
    content = json.loads(METADATA.to_text())
    del content[name]
    with pytest.raises(DataError, match=f'has no {name}'):
        ExportMetadata.from_text(json.dumps(content), 'FILE.onnx')


@pytest.mark.parametrize('text', ['', '[]', METADATA.to_text()[:-20]])
def test_a_text_that_is_cut_off_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r'^FILE\.onnx cannot be used'):
        ExportMetadata.from_text(text, 'FILE.onnx')


@pytest.mark.parametrize('path', ['more', 'image.more'])
def test_a_file_of_another_version_names_both(path: str) -> None:
    """What this version does not know is the work of a newer one."""
    content = {**json.loads(METADATA.to_text()), 'mmsw': '99.1.0'}
    *parents, name = path.split('.')
    for part in (content, *(content[parent] for parent in parents)):
        place = part
    place[name] = 1
    where = ''.join(f' {parent}' for parent in parents)
    with pytest.raises(DataError) as error:
        ExportMetadata.from_text(json.dumps(content), 'FILE.onnx')
    assert str(error.value) == (
        f'FILE.onnx cannot be used: its metadata{where} has an unknown more; mmsw 99.1.0 wrote it, '
        f'and this is {__version__}: install that one, or export it again with tools/export.py'
    )
