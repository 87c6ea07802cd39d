"""tools/benchmark_export.py: rows of a real run, tables, the page that gets them, bad arguments."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from study_helpers import ROOT, assert_one_line_and_nothing_left, call_tool, make_scenes
from timing_helpers import make_small, result_in

from mmsw.apis import build_test_runner, init_model, load_exported
from mmsw.benchmarks.export import benchmark as export_benchmark
from mmsw.benchmarks.export.page import page_text
from mmsw.benchmarks.export.report import markdown, table_of, tables
from mmsw.benchmarks.export.rows import add_times
from mmsw.benchmarks.export.settings import DEMO
from mmsw.benchmarks.page import BEGIN, END, figures_path
from mmsw.errors import UsageError

TOOL = ROOT / 'tools/benchmark_export.py'
PAGE = ROOT / 'docs/exported_parity.md'
TINY = """\
_base_ = {base!r}
dims = [8, 8, 8, 8]
arch = dict(_delete_=True, depths=[1, 1, 1, 1], dims=dims)
model = dict(
    backbone=dict(arch=arch, big_kernels=(7, 7, 5, 3), init_cfg=None),
    decode_head=dict(in_channels=dims, channels=8),
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
"""


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Config and checkpoint of a segmentor with random weights, and data."""
    pytest.importorskip('mmseg', reason='mmseg: not installed')
    data = make_scenes(tmp_path_factory, 4, 'mmseg') / 'ADEChallengeData2016'
    folder = tmp_path_factory.mktemp('tiny')
    config, checkpoint = folder / 'tiny.py', folder / 'tiny.pth'
    base = str(ROOT / 'configs/demo/upernet_sw_mini_scenes.py')
    config.write_text(TINY.format(base=base, data=str(data)), encoding='utf-8')
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match='the weights of the model are random'):
        model = init_model(config)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return str(config), str(checkpoint)


@pytest.fixture(scope='module')
def run(tiny: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    """Folder, result and page of a quick run over ONNX, in float32 and int8."""
    pytest.importorskip('onnxruntime', reason='onnx: absent; the run exports to ONNX')
    pytest.importorskip('onnxscript', reason='onnx: absent; the run exports to ONNX')
    out = tmp_path_factory.mktemp('out') / 'new'
    page = out.parent / 'page.md'
    page.write_text(f'# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n', encoding='utf-8')
    options = ['--quick', '--threads', '1', '--only', 'onnx', '--page', str(page)]
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, export_benchmark, least=2)
        assert call_tool(TOOL, '--out', str(out), *options, '--model', *tiny) == 0
    return out, result_in(out), page.read_text(encoding='utf-8')


@pytest.mark.slow
def test_a_run(run: tuple[Path, dict, str], tiny: tuple[str, str], tmp_path: Path) -> None:
    out, result, page = run
    assert result['errors'] == result['left_out'] == []
    rows = {(row['format'], row['precision']): row for row in result['rows']}
    assert list(rows) == [
        ('PyTorch', 'as trained'),
        ('PyTorch', 'folded'),
        ('onnx', 'float32'),
        ('onnx', 'int8'),
    ]
    expected = build_test_runner(*tiny, work_dir=tmp_path).test()['mIoU']
    for row in rows.values():
        assert row['model'] == 'tiny'
        assert row['threads'] == 1
        assert row['size'] == [96, 96]
        near = 2.0 if row['precision'] == 'int8' else 0.02
        assert row['scores'] == {'mIoU': pytest.approx(expected, abs=near)}
        folded = rows['PyTorch', 'folded']
        assert row['over_folded'] == pytest.approx(row['median_ms'] / folded['median_ms'])
    whole, small = rows['onnx', 'float32'], rows['onnx', 'int8']
    assert 0 < whole['errors']['logits']['share'] < 1e-5 < small['errors']['logits']['share']
    assert whole['changed'] <= small['changed'] < 0.1
    assert small['bytes'] < whole['bytes']
    assert small['zeros'] >= whole['zeros']
    for row in (whole, small):
        file = out / 'files' / f'tiny_{row["precision"]}.onnx'
        assert file.stat().st_size == row['bytes']
        assert load_exported(file).metadata.precision == row['precision']

    assert (out / 'benchmark.md').read_text(encoding='utf-8') == markdown(result)
    assert page == f'# Title\n\n{BEGIN}\n\n{page_text(result)}\n{END}\n\nThe end.\n'
    beside = json.loads((out.parent / 'page.json').read_text(encoding='utf-8'))
    assert beside['rows'] == result['rows']


def row_of(format: str, precision: str, **more: object) -> dict:
    errors = {} if format == 'PyTorch' else {'boxes': 0.0123, 'scores': 3e-5}
    return dict(
        model='small',
        format=format,
        precision=precision,
        scores={'box AP': 71.234, 'mask AP': 65.4321},
        errors={name: dict(largest=size, share=size / 9) for name, size in errors.items()},
        changed=0.0125 if errors else None,
        bytes=3 * 2**20,
        weights=2000,
        zeros=150,
        size=[96, 128],
    ) | dict(more)


def test_a_table() -> None:
    rows = [row_of('PyTorch', 'folded'), row_of('openvino', 'int8')]
    add_times(rows, [[0.02, 0.02, 0.04], [0.01]], 2)
    assert table_of(rows) == [
        '| form | box AP | mask AP | error of boxes | error of scores | changed | MiB | zeros | ms '
        '| / folded | spread | n |',
        '| --- |' + ' ---: |' * 11,
        '| PyTorch, folded | 71.23 | 65.43 | – | – | – | 3.00 | 7.5% | 20.00 | 1.00 | 50% | 3 |',
        '| openvino, int8 | 71.23 | 65.43 | 1e-02 px | 3e-05 | 1.25% | 3.00 | 7.5% | 10.00 | 0.50 '
        '| 0% | 1 |',
    ]
    assert tables(dict(rows=rows))[:3] == ['', '## small, 96 x 128, 2 threads', '']


def test_a_form_whose_results_are_others_is_an_error(
    tiny: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, export_benchmark, least=2)
    failed = SimpleNamespace(passed=False, verification=SimpleNamespace(problems=['far off']))
    monkeypatch.setattr(export_benchmark, 'export_model', lambda *args, **options: failed)
    result = export_benchmark.benchmark_export(
        tmp_path, 'quick', models=[tiny], only=['torch', 'int8'], threads=1
    )
    assert result['errors'] == ['tiny, onnx int8: far off', 'tiny, torch float32: far off']
    assert [row['format'] for row in result['rows']] == ['PyTorch', 'PyTorch']


def test_a_form_that_there_is_not_is_left_out(
    tiny: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that a format cannot hold is an error, since the format has a row otherwise."""
    make_small(monkeypatch, export_benchmark, least=2)

    def refusing(*args: object, **options: object) -> None:
        raise UsageError('it has no such form')

    monkeypatch.setattr(export_benchmark, 'export_model', refusing)
    result = export_benchmark.benchmark_export(
        tmp_path, models=[tiny], only=['bfloat16'], threads=1
    )
    assert result['errors'] == ['tiny, torch bfloat16: it has no such form']
    left_out = ' '.join(result['left_out'])
    for form in ('onnx', 'openvino'):
        assert f'tiny, {form} bfloat16: format {form} does not run in bfloat16' in left_out


def test_bad_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in {
        '--only nothing': r"only must be parts of names of \['onnx float32'.*got \['nothing'\]",
        '--threads 0': 'processors here, got 0',
        '--model a.py b.pth': r'config a\.py does not exist$',
        '': 'upernet_sw_mini_scenes.py does not exist; make demo and make demo-detection make it',
    }.items():
        assert_one_line_and_nothing_left(TOOL, arguments.split(), message, capsys)


def test_the_page_of_the_documentation_has_the_figures_beside_it() -> None:
    result = json.loads(figures_path(PAGE).read_text(encoding='utf-8'))
    text = PAGE.read_text(encoding='utf-8')
    assert f'{BEGIN}\n\n{page_text(result)}\n{END}' in text
    assert result['errors'] == []
    models = {subject.name for subject in DEMO}
    assert {row['model'] for row in result['rows']} == models
    told = {(row['format'], row['precision']) for row in result['rows']}
    left_out = ' '.join(result['left_out'])
    for form in result['settings']['forms']:
        assert tuple(form) in told or ' '.join(form) in left_out
