"""Runs of a transfer benchmark: equal conditions, masks, measurements, going on."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from transfer_helpers import DETECTOR, RESNET, settings_for

from mmsw.apis import build_runner
from mmsw.benchmarks import memory
from mmsw.benchmarks.redraw import redraw
from mmsw.benchmarks.runs import result_of
from mmsw.benchmarks.transfer.networks import read_networks
from mmsw.benchmarks.transfer.plan import plan_runs, run_config
from mmsw.benchmarks.transfer.report import same_conditions, write_report
from mmsw.benchmarks.transfer.starts import find_starts, make_starts
from mmsw.checkpoint import load_checkpoint_file
from mmsw.demo.pretraining import pretraining_iterations
from mmsw.figure import METHODS


def test_every_start_sees_the_same_data_and_begins_with_the_same_heads(trained):
    results = {start: result_of(run) for start, run in trained.items()}
    first = results['scratch']['first_batches']
    assert len(first) == 3
    assert all(len(batch['images']) == 2 for batch in first)
    assert len({batch['inputs'] for batch in first}) == 3
    for start, result in results.items():
        assert result['first_batches'] == first, start
        for key in ('heads_at_start', 'random_at_start'):
            assert result[key] == results['scratch'][key], (start, key)
    assert same_conditions(list(trained.values())) == []


def test_another_seed_sees_other_data(network, trained, tmp_path):
    settings = settings_for(tmp_path, seeds=2, budgets={'seg': 1}, evaluations=1)
    other = plan_runs([network], settings, {})[1]
    build_runner(run_config(other, settings)).train()
    result, first = result_of(other), result_of(trained['scratch'])
    assert result['first_batches'][0] != first['first_batches'][0]
    assert result['heads_at_start'] != first['heads_at_start']


def test_sparse_stays_sparse_and_unmasked_grows_back(trained):
    results = {start: result_of(run) for start, run in trained.items()}
    start = results['sparse']['density_before']
    assert start['by_mask'] == start['not_zero'] == pytest.approx(0.6, abs=0.05)
    assert results['sparse']['density_after'] == start
    unmasked = results['sparse-unmasked']
    assert unmasked['density_before'] == {**start, 'by_mask': 1.0}
    assert unmasked['density_after']['by_mask'] == unmasked['density_after']['not_zero'] == 1.0
    for name in ('scratch', 'scratch-long', 'dense'):
        for when in ('before', 'after'):
            assert results[name][f'density_{when}']['zeros'] == 0
    zeros = 0
    for key, value in load_checkpoint_file(trained['sparse'].folder / 'final.pth')[
        'state_dict'
    ].items():
        if '.paths.' in key and key.endswith('.weight'):
            zeros += int((value == 0).sum())
    assert zeros == start['zeros'] > 0


def test_longer_run_from_scratch_has_the_iterations_of_pretraining_as_well(network, trained):
    pretraining = pretraining_iterations(network.data.parent, epochs=2)
    assert pretraining == 2  # passes over fewer than 64 cutouts
    curve = result_of(trained['scratch-long'])['curve']
    assert [point['iteration'] for point in curve] == [3, 4 + pretraining]
    short, long = (trained[start].settings for start in ('scratch', 'scratch-long'))
    assert {key for key in short if short[key] != long[key]} == {'start', 'budget'}


def test_result_is_complete(trained):
    for start, run in trained.items():
        result = result_of(run)
        last = 4 if start != 'scratch-long' else 6
        assert [point['iteration'] for point in result['curve']] == [last // 2, last]
        assert all(point['loss'] > 0 for point in result['curve'])
        assert result['scores'] == {'mIoU': result['curve'][-1]['mIoU']}
        assert 0 < result['seconds_per_iteration'] < result['wall_seconds']
        # the first after a start or an evaluation is not
        assert result['iterations_timed'] == last - 2
        assert result['peak_memory'] > 1e8
        assert result['input_size'] == [96, 96]
        assert result['macs_used'] <= result['macs']
        assert result['parameters_used'] + result['density_after']['zeros'] == result['parameters']
        assert not (run.folder / 'latest.pth').exists()
    sparse = result_of(trained['sparse'])
    assert sparse['backbone']['parameters_used'] < sparse['backbone']['parameters']


@HOOKS.register_module()
class StopForTest(Hook):
    """Fails in the middle of a run."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == 3:
            raise RuntimeError('stopped')


def test_stopped_run_goes_on_exactly(network, pretrained, trained, tmp_path):
    whole = trained['sparse-unmasked']
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'starts').symlink_to(pretrained)
    settings = settings_for(out, ['sparse-unmasked'])
    (run,) = plan_runs([network], settings, find_starts([network], settings))
    assert run.digest == whole.digest
    cfg = run_config(run, settings)
    cfg.custom_hooks.append(dict(type='StopForTest'))
    with pytest.raises(RuntimeError, match='stopped'):
        build_runner(cfg, resume='auto').train()
    assert result_of(run) is None
    torch.manual_seed(99)
    build_runner(run_config(run, settings), resume='auto').train()
    first, second = result_of(whole), result_of(run)
    for key in ('scores', 'curve', 'density_before', 'density_after', 'first_batches'):
        assert first[key] == second[key], key
    states = [load_checkpoint_file(r.folder / 'final.pth')['state_dict'] for r in (whole, run)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_report_and_picture(network, trained, tmp_path):
    planned = list(trained.values())
    settings = settings_for(tmp_path, trained)
    text = write_report([network], planned, settings, [])
    assert (tmp_path / 'report.md').read_text() == text
    for start in trained:
        assert text.count(f'| {start} ') == 2
    assert '5 of 5 runs finished' in text
    assert 'Iterations: seg 4 (scratch-long: 6);' in text
    assert 'saw the same first batches' in text
    everything = json.loads((tmp_path / 'results.json').read_text())
    assert everything['format'] == 'mmsw.benchmark_transfer/1'
    assert len(everything['runs']) == len(everything['summary']) == 5
    sparse = everything['summary'][3]
    assert sparse['start'] == 'sparse'
    dense = result_of(trained['dense'])['scores']['mIoU']
    assert sparse['scores']['mIoU']['minus_dense']['mean'] == pytest.approx(
        result_of(trained['sparse'])['scores']['mIoU'] - dense
    )
    assert redraw(tmp_path).name == 'transfer.svg'
    assert (tmp_path / 'transfer.png').read_bytes()[:4] == b'\x89PNG'
    text = (tmp_path / 'transfer.svg').read_text(encoding='utf-8')
    assert all(METHODS[start].colour in text for start in trained)


def test_report_says_whether_different_networks_saw_the_same(network, trained, tmp_path):
    """Of one start there is nothing to say; of two networks, whether their data were the same."""
    run = trained['dense']
    settings = settings_for(tmp_path, ['dense'])
    assert 'first batches' not in write_report([network], [run], settings, [])
    other = replace(network, name='other')
    twin = replace(run, network=other)
    text = write_report([network, other], [run, twin], settings, [])
    assert 'Runs of different networks with the same seed saw the same first batches' in text
    changed = json.loads((run.folder / 'result.json').read_text())
    changed['first_batches'][0]['inputs'] = 'else'
    (tmp_path / 'twin').mkdir()
    (tmp_path / 'twin/result.json').write_text(json.dumps(changed))
    twin = replace(twin, folder=tmp_path / 'twin')
    text = write_report([network, other], [run, twin], settings, [])
    assert 'The networks did NOT see the same first batches: ' in text


def test_detection(data, tmp_path):
    pytest.importorskip('mmdet', reason='mmdet: absent; detection needs it')
    path = tmp_path / 'detector.py'
    path.write_text(DETECTOR)
    network = read_networks([('det', path)], {'det': data}, {})[0]
    settings = settings_for(tmp_path, budgets={'det': 2}, evaluations=1)
    (run,) = plan_runs([network], settings, {})
    build_runner(run_config(run, settings)).train()
    result = result_of(run)
    assert set(result['scores']) == {'bbox AP', 'segm AP'}
    assert [point['iteration'] for point in result['curve']] == [2]
    assert all(0 <= score <= 100 for score in result['scores'].values())
    assert result['macs'] >= result['backbone']['macs'] > 0
    assert result['density_after']['not_zero'] == 1.0


def test_a_resnet_that_is_pruned_at_once_stays_sparse_and_grows_back_without_masks(data, tmp_path):
    path = tmp_path / 'resnet.py'
    path.write_text(RESNET)
    network = read_networks([('seg', path)], {'seg': data}, {})[0]
    settings = settings_for(
        tmp_path, ['dense', 'sparse', 'sparse-unmasked'], sparsity=0.75, pretrain_epochs=1,
        budgets={'seg': 2}, evaluations=1,
    )  # fmt: skip
    starts, said = find_starts([network], settings), []
    make_starts([network], settings, starts, said.append)
    assert [line.split(' ')[0] for line in said if line[0] != ' '] == ['pretraining', 'pruning']
    state = load_checkpoint_file(starts['resnet', 'sparse'][0])['state_dict']
    dense = load_checkpoint_file(starts['resnet', 'dense'][0])['state_dict']
    layers = {k: w for k, w in state.items() if w.ndim > 1 and (w == 0).any()}
    assert len(layers) > 15
    assert 'stem.0.weight' not in layers
    for name, weight in layers.items():
        kept = weight != 0
        assert (~kept).double().mean() == pytest.approx(0.75, abs=1 / weight.numel())
        assert torch.equal(weight[kept], dense[name][kept])
        assert dense[name][~kept].abs().max() <= weight[kept].abs().min()

    results = {}
    for run in plan_runs([network], settings, starts):
        build_runner(run_config(run, settings)).train()
        results[run.start] = result_of(run)
    zeros = sum(int((weight == 0).sum()) for weight in layers.values())
    assert results['sparse']['density_before']['zeros'] == zeros
    assert results['sparse']['density_after'] == results['sparse']['density_before']
    assert results['sparse-unmasked']['density_before'] == results['sparse']['density_before']
    assert results['sparse-unmasked']['density_after']['zeros'] < zeros / 100
    assert results['dense']['density_before']['weights_not_zero'] == 1.0
    done = plan_runs([network], settings, starts)
    text = write_report([network], done, settings, [])
    share = f'{results["sparse"]["density_after"]["weights_not_zero"]:.2%} of weights'
    assert text.count(share) == 3


def test_memory_of_the_parent_process_does_not_count():
    block = np.ones(40_000_000)  # 320 MB, resident
    code = f'import runpy; print(runpy.run_path({memory.__file__!r})["resident_peak"]())'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < 150e6 < block.nbytes
    assert memory.resident_peak() > block.nbytes
