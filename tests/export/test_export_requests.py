"""What is asked for makes no sense: refused before a model is built, in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from run_tool import tool
from small_models import SEGMENTOR

from mmsw.apis import UsageError, export_model
from mmsw.apis.export import plan
from mmsw.checkpoint.trained import EXPORTED
from mmsw.deploy.export.formats import FORMATS, check_packages
from mmsw.errors import DataError

for package in ('onnx', 'onnxscript', 'onnxruntime'):
    pytest.importorskip(package, reason=f'onnx: {package} is not installed')


def refusals(folder: Path) -> dict[str, tuple[dict, str]]:
    """What is refused before a model is built: options, and what the line says."""
    (folder / 'file').write_text('x')
    (folder / 'empty').mkdir()
    (folder / 'there.onnx').write_text('x')
    return {
        'suffix': (dict(path='m.xml'), r'm\.xml does not fit format onnx, whose files end with'),
        'format': (dict(format='tflite'), "format must be one of onnx, openvino, torch, got 'tfli"),
        'precision': (dict(precision='int4'), "precision must be one of .*, got 'int4'"),
        'small': (dict(size=(16, 64)), 'size 16 64 is too small'),
        'no size': (dict(dynamic=False), r'dynamic=False needs the size'),
        'folder': (dict(path=folder / 'file' / 'm.onnx'), 'file is a file, expected a folder'),
        'there': (dict(path=folder / 'there.onnx'), r'there\.onnx is there already'),
        'is folder': (dict(path='sub.onnx'), r'sub\.onnx is a folder'),
        'no images': (dict(verify=folder / 'empty'), 'has no image or video in it'),
        'no folder': (dict(verify=folder / 'none'), 'none does not exist'),
        'calibrate': (dict(calibrate=folder), 'calibrate is for precision int8'),
        'keep float': (dict(precision='int8', keep_float='('), r"'\(' is no regular expression"),
        'threads': (dict(threads=0), 'threads must be 1 or more'),
    }


NAMES = (
    'suffix', 'format', 'precision', 'small', 'no size', 'folder', 'there', 'is folder',
    'no images', 'no folder', 'calibrate', 'keep float', 'threads',
)  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_what_is_refused_before_a_model_is_built(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = refusals(tmp_path)
    assert cases.keys() == set(NAMES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'sub.onnx').mkdir()
    before = sorted(tmp_path.rglob('*'))
    options, message = cases[name]
    options = {'path': tmp_path / 'm.onnx', **options}
    with pytest.raises((UsageError, DataError), match=message):
        export_model('no_config.py', 'no.pth', **options)
    assert sorted(tmp_path.rglob('*')) == before


def test_packages_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r'^format x needs numpy and no_such, and no_such is'):
        check_packages(('numpy', 'no_such'), 'format x')
    kind = dataclasses.replace(plan.FORMATS['onnx'], writes=('no_such',))
    monkeypatch.setitem(plan.FORMATS, 'onnx', kind)
    with pytest.raises(UsageError, match=r'no_such is not installed: .*run `pip install'):
        export_model('no_config.py', 'no.pth', tmp_path / 'm.onnx')


@pytest.mark.parametrize(
    'words', [['--size', '64', '64', '--dynamic'], ['--verify', 'x', '--no-verify'], []]
)
def test_options_that_exclude_each_other(words: list, capsys: pytest.CaptureFixture) -> None:
    out = ['--out', 'm.onnx'] if words else []
    with pytest.raises(SystemExit, match='2'):
        tool('export', 'CONFIG', 'CHECKPOINT', *out, *words)
    assert ('not allowed with' if words else 'required: --out') in capsys.readouterr().err


def test_what_a_prediction_lacks_is_named(capsys: pytest.CaptureFixture) -> None:
    for words, lacking in (
        (['m.onnx'], 'INPUT'),
        ([SEGMENTOR, 'm.pth'], 'INPUT'),
        ([SEGMENTOR], 'CHECKPOINT, INPUT'),
    ):
        with pytest.raises(SystemExit, match='2'):
            tool('predict', *words, '--out', 'none')
        assert capsys.readouterr().err.endswith(f'arguments are required: {lacking}\n')


def test_every_format_is_known_where_checkpoints_are_asked_for() -> None:
    assert set(EXPORTED) == {kind.suffix for kind in FORMATS.values()}
