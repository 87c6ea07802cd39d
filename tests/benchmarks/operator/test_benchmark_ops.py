"""tools/benchmark_ops.py: the contenders compute the operator, and the reports are whole."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from study_helpers import ROOT, call_tool
from timing_helpers import (
    assert_bad_arguments_are_named,
    assert_nobody_of_a_name,
    assert_whole_report,
    make_small,
    result_in,
)

from mmsw.benchmarks.measure import measure, peak_memory
from mmsw.benchmarks.operator import benchmark as operator_benchmark
from mmsw.benchmarks.operator import runtimes
from mmsw.benchmarks.operator.benchmark import benchmark_ops, usable_backends
from mmsw.benchmarks.operator.cases import Case, OperatorShape, stage_shapes
from mmsw.benchmarks.operator.contenders import contenders, folded_arms
from mmsw.benchmarks.operator.job import BOTH, FORWARD, Job
from mmsw.benchmarks.operator.kept_groups import FILE
from mmsw.benchmarks.operator.plot import draw
from mmsw.benchmarks.operator.report import markdown
from mmsw.benchmarks.operator.shift_alternatives import ALTERNATIVES
from mmsw.benchmarks.operator.summary import comparisons, summary
from mmsw.ops import ShiftPattern, available_backends, shift_add

TOOL = ROOT / 'tools/benchmark_ops.py'
CPU = torch.device('cpu')
TINY = [
    OperatorShape('v1', 32, 1, 3, 9, 13, 5, 2),
    OperatorShape('v2', 64, 1, 4, 12, 13, 3, 2),
    OperatorShape('v2', 64, 2, 6, 5, 7, 3, 4),
]


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Tiny layers instead of the networks' stages, few samples; no backend that compiles first."""
    states = available_backends() | {'taichi': 'not in this test'}
    monkeypatch.setattr(operator_benchmark, 'available_backends', lambda: states)
    monkeypatch.setattr(
        operator_benchmark,
        'stage_shapes',
        lambda version, crop: [s for s in TINY if (s.version, s.crop) == (version, crop)],
    )
    make_small(monkeypatch, operator_benchmark)
    monkeypatch.setattr(operator_benchmark, '_CHEAP', 0)


@pytest.mark.parametrize('name', ALTERNATIVES)
@pytest.mark.parametrize(
    ('big', 'small', 'reps', 'channels', 'batch', 'height', 'width'),
    [
        (13, 3, 2, 4, 2, 9, 7),
        (13, 5, 3, 3, 1, 5, 20),
        (51, 3, 4, 2, 2, 6, 70),  # shifts beyond the map
        (7, 3, 1, 2, 1, 1, 1),
    ],
)
def test_alternative_shifts_exactly(name, big, small, reps, channels, batch, height, width):
    if name == 'deformable conv':
        pytest.importorskip('mmcv.ops', reason='mmcv.ops: not compiled in this mmcv')
    pattern = ShiftPattern.draw(big, small, channels, reps)
    margin = 2 * pattern.margin
    size = (batch, channels * pattern.num_groups, height + margin, width + margin)
    conv_out = torch.randn(size, requires_grad=True)
    expected = shift_add(conv_out, pattern, backend='torch')
    found = ALTERNATIVES[name](pattern, height, width)(conv_out)
    grads = [torch.randn_like(out) for out in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)
    torch.testing.assert_close(
        *(torch.autograd.grad(outputs, conv_out, grads)[0] for outputs in (found, expected)),
        atol=2e-5,
        rtol=0,
    )


@pytest.mark.parametrize('mode', [FORWARD, BOTH])
@pytest.mark.parametrize('shape', TINY, ids=str)
def test_every_contender_agrees_with_the_definition(shape, mode):
    case = Case(shape, 2, CPU, seed=0, sparsity=0.3)
    backends, _ = usable_backends(CPU)
    jobs = [job for job in contenders(case, mode, backends) if isinstance(job, Job)]
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    expected = {'mmsw torch', 'small conv', 'SLaK pair', 'depthwise 31x31', 'depthwise 7x7'}
    expected |= {f'small conv + {name}' for name in ALTERNATIVES if name != 'deformable conv'}
    assert expected <= set(names)
    for job in jobs:
        assert job.check(job()) < 3e-4


def test_tall_kernel_gradients_are_right_at_full_height():
    """Heights at which oneDNN's weight gradient is wrong unless rows are padded beforehand."""
    case = Case(OperatorShape('v2', 0, 1, 2, 64, 51, 3, 1), 1, CPU, seed=0, sparsity=0.0)
    for job in contenders(case, BOTH, ['torch']):
        assert isinstance(job, str) or job.check(job()) < 3e-4


def test_wrong_numbers_are_an_error_and_no_row(tiny, tmp_path, monkeypatch, capsys):
    right = ALTERNATIVES['torch.roll']

    def wrong(pattern, height, width):
        shift = right(pattern, height, width)
        return lambda conv_out: shift(conv_out.roll(1, 3))

    monkeypatch.setitem(ALTERNATIVES, 'torch.roll', wrong)
    sizes = ['--network-version', 'v1', '--crop', '32', '--batch', '1', '--sparsity']
    code = call_tool(TOOL, '--out', str(tmp_path), *sizes)
    assert code == 1
    assert 'error: small conv + torch.roll' in capsys.readouterr().err
    result = result_in(tmp_path)
    names = {row['name'] for row in result['rows']}
    assert 'small conv + torch.roll' not in names
    assert {'small conv + slices', 'mmsw torch'} <= names
    assert len(result['errors']) == 2
    assert '## Errors' in (tmp_path / 'benchmark.md').read_text()


def test_a_run_that_was_stopped_goes_on(tiny, tmp_path, monkeypatch, capsys):
    arguments = ['--out', str(tmp_path), '--network-version', 'v2', '--crop', '64', '--batch', '1']
    measured, stop = [], [3]
    real = operator_benchmark._Run._measure

    def stopping(self, group, *rest):
        if len(measured) == stop[0]:
            raise KeyboardInterrupt
        measured.append(str(group))
        return real(self, group, *rest)

    monkeypatch.setattr(operator_benchmark._Run, '_measure', stopping)
    assert call_tool(TOOL, *arguments, '--sparsity', '0') == 130
    assert 'no report was written' in (told := capsys.readouterr().err)
    assert told.endswith('; start again to go on\n')
    assert [path.name for path in tmp_path.iterdir()] == [FILE]

    assert call_tool(TOOL, *arguments, '--sparsity', '0.5') == 2
    told = capsys.readouterr().err
    assert f'{FILE} is of an unfinished run that differs in settings.' in told

    stop[0] = None
    assert call_tool(TOOL, *arguments, '--sparsity', '0') == 0
    told = capsys.readouterr().err
    assert '3 groups are finished already' in told
    assert len(set(measured)) == len(measured)
    result = result_in(tmp_path)
    assert len(result['sittings']) == 2
    found = {(row['shape'], row['mode'], row['dtype'], row['sweep']) for row in result['rows']}
    assert len(found) >= len(measured) - 4  # two sweeps, over one and over all repetitions
    assert 'small conv' in {row['name'] for row in result['rows']}
    assert not (tmp_path / FILE).exists()


def test_run_writes_whole_reports(tiny, tmp_path, capsys):
    out = tmp_path / 'new' / 'folder'
    before = torch.get_num_threads()
    arguments = ['--network-version', 'v2', '--crop', '64', '--batch', '1', '2', '--threads', '1']
    assert call_tool(TOOL, '--out', str(out), *arguments, '--sparsity', '0', '0.5') == 0
    assert torch.get_num_threads() == before
    progress = capsys.readouterr().err
    assert '[1/28] v2 64 stage 2' in progress
    assert 'x floor  n=' in progress
    assert 'left)' in progress

    result = result_in(out)
    assert_whole_report(out, 'benchmark_ops', markdown(result))
    states = available_backends()
    assert set(result['backends']) | set(result['unavailable']) == set(states)
    assert 'torch' in result['backends']
    for row in result['rows']:
        assert row['threads'] == 1
        assert row['samples'] >= 1
        assert 0 < row['min_ms'] <= row['median_ms'] <= row['max_ms']
        assert row['floor_ms'] == max(row['arithmetic_floor_ms'], row['bytes_floor_ms'])
        assert row['ratio'] == pytest.approx(row['median_ms'] / row['floor_ms'])
        unseen = row['name'].startswith(('onnxruntime', 'OpenVINO'))
        assert row['peak_bytes'] is None if unseen else row['peak_bytes'] > 0
    dense = {
        (row['stage'], row['batch'], row['mode'], row['dtype'])
        for row in result['rows']
        if row['name'] == 'mmsw torch' and not row['sweep']
    }
    assert len(dense) == 16
    assert {key[3] for key in dense} == {'float32', 'bfloat16'}
    swept = [row for row in result['rows'] if row['sweep']]
    assert {row['sparsity'] for row in swept} == {0, 0.5}
    assert {row['num_reps'] for row in swept} == {1, 2, 4}
    assert {row['name'] for row in swept if row['num_reps'] > 1} == {
        f'mmsw {name}' for name in result['backends']
    }
    swept = [row for row in swept if row['num_reps'] == 1]
    half, whole = (
        next(r for r in swept if (r['sparsity'], r['stage'], r['mode']) == (share, 1, FORWARD))
        for share in (0.5, 0)
    )
    assert half['multiply_adds'] == whole['multiply_adds'] / 2 == 4 * 12**2 * (6 * 17 + 9) / 2

    text = (out / 'benchmark.md').read_text()
    for name, reason in result['unavailable'].items():
        assert f'- {name}: {reason}' in text


def test_quick_and_full_cover_what_they_promise(tiny, tmp_path):
    few = operator_benchmark.PRESETS['quick']
    assert (few.versions, few.crops, few.batches) == (('v2',), (512,), (1,))
    full = operator_benchmark.PRESETS['full']
    assert (full.versions, full.crops, full.batches) == (('v1', 'v2'), (224, 512), (1, 2, 8))
    assert 1 in full.threads
    assert call_tool(TOOL, '--quick', '--crop', '64', '--out', str(tmp_path)) == 0
    names = {row['name'] for row in result_in(tmp_path)['rows']}
    assert {'mmsw torch', 'small conv + slices', 'SLaK pair', 'depthwise 7x7'} <= names
    assert 'depthwise 31x31' not in names


def row(name, stage, time, floor=1.0, **values):
    """What the summary reads of a row."""
    return dict(
        version='v2', crop=512, batch=1, threads=2, dtype='float32', mode=FORWARD, sweep=False,
        sparsity=0.0, num_reps=1, kind='fused', name=name, stage=stage, median_ms=time,
        floor_ms=floor, arithmetic_floor_ms=floor / 2, bytes_floor_ms=floor,
    ) | values  # fmt: skip


def test_summary_compares_totals_over_the_stages():
    rows = [
        row('mmsw torch', 1, 4.0, 1.0), row('mmsw torch', 2, 2.0, 1.0),
        row('mmsw fast', 1, 1.0, 1.0), row('mmsw fast', 2, 2.0, 1.0),
        row('small conv + slices', 1, 20.0, 1.0), row('small conv + slices', 2, 10.0, 1.0),
        row('SLaK pair', 1, 5.0, 1.0),
    ]  # fmt: skip
    entries = {entry['name']: entry for entry in summary(rows)}
    assert 'SLaK pair' not in entries  # lacks a stage
    fast = entries['mmsw fast']
    assert (fast['total_ms'], fast['floor_ratio']) == (3.0, 1.5)
    assert (fast['arithmetic_floor_ratio'], fast['bytes_floor_ratio']) == (3.0, 1.5)
    assert (fast['over_slices'], fast['over_slak'], fast['over_torch']) == (10.0, None, 2.0)


def test_pruned_and_half_precision_are_compared_with_dense_float32():
    rows = [
        row('mmsw cpp', 1, 4.0), row('mmsw cpp', 2, 6.0),
        row('mmsw cpp', 1, 3.0, dtype='bfloat16'), row('mmsw cpp', 2, 6.0, dtype='bfloat16'),
        row('mmsw torch', 1, 3.0, dtype='bfloat16'),  # a stage is missing
        row('mmsw cpp', 1, 8.0, sweep=True), row('mmsw cpp', 2, 2.0, sweep=True),
        row('mmsw cpp', 1, 3.0, sweep=True, sparsity=0.7),
        row('mmsw cpp', 2, 1.0, sweep=True, sparsity=0.7),
        row('mmsw cpp, masked', 1, 2.0, sweep=True, sparsity=0.7),
        row('mmsw cpp, masked', 2, 1.0, sweep=True, sparsity=0.7),
    ]  # fmt: skip
    found = {(entry['what'], entry['name']): entry['ratio'] for entry in comparisons(rows)}
    assert found == {
        ('70% pruned over dense, R = 1', 'mmsw cpp'): 0.4,
        ('70% pruned over dense, R = 1', 'mmsw cpp, masked'): 0.3,
        ('bfloat16 over float32', 'mmsw cpp'): 0.9,
    }


def test_picture_with_missing_results(tmp_path):
    pytest.importorskip('matplotlib', reason='matplotlib: absent; draws the picture')
    about = dict(machine=dict(cpu='a', torch='2', date='2026-01-01T00'))
    slow, spread = row('small conv + slices', 1, 400.0), dict(spread=0.1)
    rows = [row('mmsw cpp', 1, 10.0) | spread, slow | spread]
    assert draw(about | dict(rows=rows), tmp_path / 'few.svg')
    assert (tmp_path / 'few.png').is_file()
    swept = [row('mmsw cpp', 1, 9.0, sweep=True, num_reps=reps) | spread for reps in (1, 4)]
    assert draw(about | dict(rows=swept), tmp_path / 'swept.svg')
    assert not draw(about | dict(rows=[]), tmp_path / 'none.svg')


def test_only_some_contenders(tiny, tmp_path, capsys):
    arguments = ['--version', 'v1', '--crop', '32', '--batch', '1', '--sparsity', '0', '0.7']
    arguments += ['--only', 'SLICES', 'torch, masked', '--out', str(tmp_path)]
    assert call_tool(TOOL, *arguments) == 0
    rows = result_in(tmp_path)['rows']
    assert {row['name'] for row in rows} == {'small conv + slices', 'mmsw torch, masked'}
    assert_nobody_of_a_name(TOOL, 'mmsw ', tmp_path, capsys)


def test_other_runtimes_are_named_when_absent(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec',
        lambda name: None if name in ('onnxruntime', 'openvino') else real('json'),
    )  # fmt: skip
    case = Case(TINY[1], 1, CPU, seed=0, sparsity=0.0)
    assert [
        job for job in contenders(case, FORWARD, ['torch'], quick=True) if isinstance(job, str)
    ] == [
        'onnxruntime: not installed; for its rows, pip install onnxruntime',
        'OpenVINO: not installed; for its rows, pip install openvino',
    ]


def test_other_runtimes_compute_the_cross_form():
    case = Case(TINY[1], 2, CPU, seed=0, sparsity=0.3)
    jobs = list(runtimes.jobs(case, folded_arms(case)))
    if not all(isinstance(job, Job) for job in jobs):
        pytest.skip('runtimes: onnx, onnxruntime or openvino is not installed')
    assert [job.name for job in jobs] == [
        'onnxruntime', 'onnxruntime folded', 'OpenVINO', 'OpenVINO folded',
    ]  # fmt: skip
    for job in jobs:
        assert job.check(job()) < 3e-4


def test_stages_come_from_the_network():
    stages = stage_shapes('v2', 512)
    assert [(s.channels, s.size, s.big_kernel, s.small_kernel) for s in stages] == [
        (60, 128, 51, 3), (122, 64, 49, 3), (246, 32, 47, 3), (492, 16, 13, 3),
    ]  # fmt: skip
    assert [s.size for s in stage_shapes('v1', 224)] == [56, 28, 14, 7]
    assert {s.small_kernel for s in stage_shapes('v1', 224)} == {5}


def test_slow_calls_take_fewer_samples_spread_over_the_rounds():
    order = []
    calls = [lambda: order.append('a'), lambda: order.append('b')]
    samples = measure(calls, [0.5, 3.0], CPU, rounds=8, budget=4.0)
    assert [len(times) for times in samples] == [8, 1]
    assert order.index('b') > order.index('a')


def test_peak_memory_counts_what_is_held_at_once():
    x = torch.zeros(256, 1024)  # 1 MiB

    def call():
        first = x + 1
        second = first + 1
        del first
        return second + 1

    result, peak = peak_memory(call, CPU)
    assert result.shape == x.shape
    assert 2 * 2**20 <= peak < 2.1 * 2**20


def test_bad_arguments_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cases = {
        '--network-version v3': "versions must be of ('v1', 'v2'), got 'v3'",
        '--version v3': "versions must be of ('v1', 'v2'), got 'v3'",
        '--sparsity 1.0': 'sparsities must be in [0, 1), got 1.0',
    }
    assert_bad_arguments_are_named(TOOL, cases, tmp_path, capsys)
    with pytest.raises(ValueError, match='preset must be one of'):
        benchmark_ops(tmp_path, preset='fast')


@pytest.mark.skipif(torch.cuda.is_available(), reason='no-gpu: there is one')
def test_cuda_without_gpu_says_what_to_do(tmp_path, capsys):
    assert call_tool(TOOL, '--out', str(tmp_path), '--device', 'cuda') == 2
    assert 'finds no GPU here; use --device cpu' in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        call_tool(TOOL, '--help')
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ('--quick', '--full', '--device', '--batch', '--threads', '--sparsity', '--out'):
        assert option in text


def test_baseline_convolutions_are_what_their_names_say():
    case = Case(TINY[1], 1, CPU, seed=0, sparsity=0.0)
    jobs = {job.name: job for job in contenders(case, FORWARD, ['torch']) if isinstance(job, Job)}
    x, tall, wide = jobs['SLaK pair'].inputs
    assert (tuple(tall.shape[2:]), tuple(wide.shape[2:])) == ((13, 5), (5, 13))
    expected = F.conv2d(x, tall, padding=(6, 2), groups=4)
    expected = expected + F.conv2d(x, wide, padding=(2, 6), groups=4)
    torch.testing.assert_close(jobs['SLaK pair']()[0], expected)
    assert jobs['SLaK pair'].arithmetic() == 4 * 12**2 * 2 * 13 * 5
    assert jobs['depthwise 31x31'].arithmetic() == 4 * 12**2 * 31**2
