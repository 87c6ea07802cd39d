"""What pages have of runs: made-up rows, and the tables that belong to them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_tool import tool

from mmsw.benchmarks import demo_page
from mmsw.benchmarks.comparison import Row
from mmsw.benchmarks.figures.blocks import problems_of
from mmsw.benchmarks.model import page as model_page
from mmsw.benchmarks.model.rows import compare
from mmsw.benchmarks.operator import page as operator_page
from mmsw.benchmarks.page import begin_line, blocks_to_fill, end_line, read_figures, text_in
from mmsw.benchmarks.sparse_training import page as sparsity_page
from mmsw.benchmarks.sparse_training.plan import SparsitySettings
from mmsw.benchmarks.sparse_training.summary import Cell
from mmsw.benchmarks.transfer import page as transfer_page
from mmsw.benchmarks.transfer.plan import TransferSettings
from mmsw.errors import UsageError
from mmsw.sparsity import Density, SparsityReport

MACHINE = dict(
    cpus=2, cpu='X', cpu_capability='AVX2', torch='2.13.0', date='2026-11-27T12:00:00', device='cpu'
)


@pytest.fixture
def page(tmp_path: Path):
    """Makes a page with blocks."""

    def made(*names: str) -> Path:
        path = tmp_path / 'page.md'
        blocks = (f'{begin_line(name)}\n\nold\n{end_line(name)}\n' for name in names)
        path.write_text('\n'.join(['# Page\n', *blocks]), encoding='utf-8')
        return path

    return made


def assert_current(page: Path, *names: str) -> None:
    """These blocks are those of the figures beside the page, which has more blocks."""
    problems = problems_of(page)
    assert problems
    assert not [line for line in problems for name in names if f'block {name}:' in line]


def tables_of(text: str) -> list[list[list[str]]]:
    """Cells of the tables of a text, without the rules below the heads."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith('|') and not line.startswith(('| ---', '|---')):
            tables += [] if inside else [[]]
            tables[-1].append([cell.strip() for cell in line.strip('|').split('|')])
        inside = line.startswith('|')
    return tables


def operator_row(name: str, stage: int, ms: float, **more: object) -> dict[str, object]:
    sizes = dict(channels=60 * stage, size=128 // stage, big_kernel=51, small_kernel=3, num_reps=4)
    where = dict(version='v2', crop=512, stage=stage, shape=f'v2 512 stage {stage}', **sizes)
    what = dict(batch=1, threads=2, mode='forward', dtype='float32', sweep=False, sparsity=0.0)
    floors = dict(floor_ms=2.0, arithmetic_floor_ms=2.0, bytes_floor_ms=1.0)
    kind = 'baseline' if name.startswith(('SLaK', 'depthwise')) else 'fused'
    return {**where, **what, **floors, 'name': name, 'kind': kind, 'median_ms': ms, **more}


def operator_result() -> dict[str, object]:
    rows = []
    for mode, factor in (('forward', 1), ('forward+backward', 10)):
        for stage, ms in ((1, 1.0), (2, 3.0)):
            rows += [
                operator_row('mmsw cpp', stage, factor * ms, mode=mode),
                operator_row('SLaK pair', stage, factor * 4 * ms, mode=mode),
                operator_row('SLaK pair, mmsw cpp', stage, factor * 2 * ms, mode=mode),
                operator_row('mmsw cpp', stage, 99.0, mode=mode, dtype='bfloat16'),
            ]
            for share, left in ((0.0, 1.0), (0.7, 0.5)):
                swept = dict(mode=mode, sweep=True, num_reps=1, sparsity=share)
                rows.append(operator_row('mmsw cpp', stage, factor * left * ms, **swept))
    rows.append(operator_row('onnxruntime', 1, 5.0, kind='other runtime'))  # lacks a layer
    first = dict(version='v1', shape='v1 512 stage 1')
    others = [operator_row('mmsw cpp', 1, 7.0, **first)]
    for share, left in ((0.0, 8.0), (0.7, 6.0)):
        swept = dict(sweep=True, num_reps=1, sparsity=share)
        others += [operator_row('mmsw torch', stage, left, **swept) for stage in (1, 2)]
    return dict(machine=MACHINE, settings={}, sittings=['a'], rows=others + rows)


def test_operators(page) -> None:
    path = page(
        *('operators', 'operators-all', 'operator-layers'),
        *('pruning', 'pruning-all', 'large-kernels'),
    )
    operator_page.update_page(operator_result(), path)
    assert problems_of(path) == []
    main = [
        ['contender', 'forward, batch 1', 'forward+backward, batch 1'],
        ['mmsw cpp', '4.00', '40.00'],
        ['SLaK pair', '16.00', '160.0'],
    ]
    assert tables_of(text_in(path, 'operators')) == [main]
    assert tables_of(text_in(path, 'operators-all')) == [
        [['contender', 'forward, batch 1'], ['mmsw cpp', '7.00']],
        [*main, ['SLaK pair, mmsw cpp', '8.00', '80.00']],
    ]
    pruned = [
        ['share pruned', '70%'],
        ['mmsw cpp, forward, batch 1, R = 1', '0.50'],
        ['mmsw cpp, forward+backward, batch 1, R = 1', '0.50'],
    ]
    assert tables_of(text_in(path, 'pruning')) == [pruned]
    torch_row = ['mmsw torch, forward, batch 1, R = 1', '0.75']
    assert tables_of(text_in(path, 'pruning-all')) == [[pruned[0], torch_row, *pruned[1:]]]
    forward, both = tables_of(text_in(path, 'operator-layers'))
    assert forward == [
        ['C, map, M/N', 'batch', 'mmsw cpp', 'SLaK pair', 'onnxruntime'],
        ['60, 128 x 128, 51/3', '1', '1.00 (0.50)', '4.00 (2.00)', '5.00 (2.50)'],
        ['120, 64 x 64, 51/3', '1', '3.00 (1.50)', '12.00 (6.00)', '–'],
        ['together', '1', '4.00 (1.00)', '16.00 (4.00)', '–'],
    ]
    assert both[-1] == ['together', '1', '40.00 (10.00)', '160.0 (40.00)']
    (kernels,) = tables_of(text_in(path, 'large-kernels'))
    assert kernels[1:] == [['SLaK pair', '16.00', '8.00', '2.00', '160.0', '80.00', '2.00']]
    assert kernels[0][2] == 'forward: cpp'
    told = ' '.join(text_in(path, 'operators').split())
    assert told.startswith('Measured on 2 processors of X (AVX2), torch 2.13.0, on 2026-11-27. ')
    assert 'sittings' not in told
    operator_page.update_page(operator_result() | dict(sittings=['a', 'b']), path)
    assert 'The run was taken in 2 sittings.' in ' '.join(text_in(path, 'operators').split())


def test_a_run_on_a_gpu_leaves_blocks_of_the_cpu_alone(page) -> None:
    path, result = page('operators', 'operators-gpu'), operator_result()
    result['machine'] = MACHINE | dict(device='cuda', gpu='Y', cuda='13.0')
    operator_page.update_page(result, path)
    assert text_in(path, 'operators') == 'old'
    assert 'Y, CUDA 13.0' in ' '.join(text_in(path, 'operators-gpu').split())
    with pytest.raises(UsageError, match='no line <!-- tables networks: begin -->'):
        blocks_to_fill(path, model_page.page_blocks('cpu'))


def test_networks(page) -> None:
    rows = [
        dict(
            name=name,
            network=name.partition(',')[0],
            median_ms=ms,
            threads=2,
            dtype='float32',
            mode=mode,
            crop=512,
            batch=1,
            images_per_s=1e3 / ms,
            ratio=1.5,
            peak_bytes=2**20,
            multiply_adds=27.4e9,
            matmul_per_s=34e9,
            shares={'products': 1.0},
        )
        for name, mode, ms in (
            ('SW-T v2', 'eval', 1200.0),
            ('SW-T v2, folded', 'eval', 900.0),
            ('ConvNeXt-T', 'eval', 1000.0),
            ('SLaK-T', 'training step', 3000.0),
        )
    ]
    compare(rows)
    path = page('networks', 'slak', 'training-step-gpu')
    model_page.update_page(dict(machine=MACHINE, settings={}, rows=rows), path)
    assert_current(path, 'networks', 'slak')
    (table,) = tables_of(text_in(path, 'networks'))
    head, *body = table
    found = {row[0]: dict(zip(head, row, strict=True)) for row in body}
    assert list(found) == ['SW-T v2', 'SW-T v2, folded', 'ConvNeXt-T']
    assert found['SW-T v2, folded']['/ ConvNeXt-T'] == '0.90'
    assert found['SW-T v2, folded']['/ own training form'] == '0.75'
    assert found['SW-T v2']['ms'] == '1200'
    assert 'Eval, crop 512, batch 1, float32, 2 threads:' in text_in(path, 'networks')
    assert [row[0] for row in tables_of(text_in(path, 'slak'))[0]] == ['network', 'SLaK-T']
    assert text_in(path, 'training-step-gpu') == 'old'


def cell_of(method: str, sparsity: float, accuracies: list[float], time: float) -> Cell:
    kept = round(100 * (1 - sparsity))
    shares = dict(filters=100, filters_kept=kept, weights=100, weights_kept=kept)
    results = {
        seed: dict(
            shares,
            accuracy=accuracy,
            held_out=40,
            exchanged=0.2,
            seconds_per_iteration=time,
            updates_share=0.01,
            threads=1,
            weights_at_start='not kept',
        )
        for seed, accuracy in enumerate(accuracies)
    }
    operator = dict(seconds=0.0123, ratio=time)
    operators = {
        seed: dict(work_left=0.5, forward=operator, forward_backward=operator, backend=['cpp'])
        for seed in results
    }
    return Cell(len(results), results, method, sparsity, operators)


def test_sparse_training(page, tmp_path: Path) -> None:
    cells = [cell_of('dense', 0.0, [90, 92], 1.0), cell_of('filter', 0.5, [91, 94], 0.5)]
    settings = SparsitySettings(tmp_path, ('dense', 'filter'), (0.5,), 2, 252)
    path = page('sparse-training')
    sparsity_page.update_page(cells, settings, path)
    assert problems_of(path) == []
    learnt, took = tables_of(text_in(path, 'sparse-training'))
    assert learnt[2][:5] == ['filter', '50%', '2', '92.50 ± 2.12', '+1.50 [-4.85, 7.85]']
    assert took[2][2:4] == ['0.500 ± 0.000', '0.50 ± 0.00']
    assert took[2][6] == '12.3'
    told = ' '.join(text_in(path, 'sparse-training').split())
    assert 'Iterations: 252; masks change every 11 iterations up to iteration 189' in told
    assert 'weights_at_start' not in json.dumps(read_figures(path, 'sparse-training'))


def transfer_row(task: str, start: str, scores: list[float]) -> Row:
    density = dict(filters=10, not_zero=0.6, by_mask=0.6, zeros=4)
    results = {
        seed: dict(
            scores={'mIoU' if task == 'seg' else 'bbox AP': score},
            density_before=density,
            density_after=density,
            seconds_per_iteration=0.25,
            peak_memory=2**20,
            memory='process, resident',
            parameters=1_000_000,
            parameters_used=900_000,
            macs=10**9,
            macs_used=10**9,
            input_size=[160, 160],
            threads=1,
            curve=[dict(iteration=100, scores={}), dict(iteration=200, scores={})],
        )
        for seed, score in enumerate(scores)
    }
    return Row(len(results), results, 'net', task, start)


def transfer_settings(**more: object) -> TransferSettings:
    given = dict(out=Path('out'), starts=('dense', 'sparse'), seeds=2)
    return TransferSettings(**given, budgets={'seg': 200, 'det': 120}, **more)


def test_each_task_has_its_block(page) -> None:
    rows = [
        transfer_row(task, start, scores)
        for task in ('seg', 'det')
        for start, scores in (('dense', [60.0, 62.0]), ('sparse', [59.0, 60.0]))
    ]
    path = page('segmentation', 'detection', 'large-kernels')
    transfer_page.update_page(rows, transfer_settings(), path)
    assert_current(path, 'segmentation', 'detection')
    assert text_in(path, 'large-kernels') == 'old'
    for name, score, budget in (
        ('segmentation', 'mIoU', '200 (seg)'),
        ('detection', 'bbox AP', '120 (det)'),
    ):
        text = text_in(path, name)
        scores, costs = tables_of(text)
        assert scores[0][3:5] == [f'{score} [%]', f'{score} − dense [95% interval]']
        assert scores[2][3:5] == ['59.50 ± 0.71', '-1.50 [-7.85, 4.85]']
        assert costs[1][2:5] == ['200', '0.250', '1']
        told = ' '.join(text.split())
        assert f'Iterations: {budget}. The pretraining of the sparse starts pruned 40%' in told
        assert '#' not in text  # the page has a head


def test_a_comparison_has_its_block(page) -> None:
    path = page('segmentation', 'ablations')
    rows = [transfer_row('seg', 'scratch', [60.0, 62.0])]
    transfer_page.update_page(rows, transfer_settings(comparison='ablations'), path)
    assert text_in(path, 'segmentation') == 'old'
    assert 'pretraining' not in text_in(path, 'ablations')
    only = page('')
    transfer_page.update_page(rows, transfer_settings(comparison='ablations'), only)
    assert len(tables_of(text_in(only))) == 2
    blocks = transfer_page.page_blocks(transfer_settings(comparison='ablations'), ['seg'])
    with pytest.raises(UsageError, match='no line <!-- tables: begin --> or <!-- tables ablations'):
        blocks_to_fill(page('segmentation'), blocks)


def test_demonstration(page) -> None:
    density = SparsityReport({}, {}, Density(6, 10, 54, 90))
    report = SimpleNamespace(
        densities=(density, density),
        num_scenes=60,
        end=Path('work_dirs/iter_900.pth'),
        scores={'mIoU': (0.75, 79.684), 'aAcc': (2.0, 95.0)},
        beside={'ResNet-18': {'mIoU': 70.0}},
        num_zeros=36,
    )
    path = page('demo', 'demo-detection')
    demo_page.check_demo_page(path, 'seg')
    demo_page.update_page(report, 'seg', path)
    assert_current(path, 'demo')
    assert tables_of(text_in(path, 'demo')) == [
        [
            ['SW mini', 'before fine-tuning', 'after', 'ResNet-18'],
            ['mIoU', '0.75', '79.68', '70.00'],
            ['aAcc', '2.00', '95.00', '–'],
            ['filters kept', '6 of 10', '6 of 10', '–'],
        ]
    ]
    with pytest.raises(UsageError, match='no line <!-- tables demo: begin -->'):
        demo_page.check_demo_page(page('other'), 'seg')


@pytest.mark.parametrize(
    'call',
    [
        ['benchmark_ops', '--quick', '--out'],
        ['benchmark_model', '--quick', '--out'],
        ['benchmark_sparsity', '--out'],
        ['demo_report'],
    ],
    ids=lambda call: call[0],
)
def test_a_page_without_a_place_is_refused_before_work(call, page, tmp_path: Path, capsys) -> None:
    assert tool(*call, tmp_path / 'new', '--page', page('other')) == 2
    assert 'page.md has no line <!-- tables' in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()
