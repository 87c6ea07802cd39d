"""Trainings with a teacher: what they learn, what they leave alone, and under which regimes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp_module
import pytest
import torch
from lessons import changed, detector, make_teacher, segmentor, trained, training, weights
from mmengine.hooks import Hook

from mmsw.apis import build_runner
from mmsw.checkpoint import load_checkpoint_file, save_checkpoint_file
from mmsw.engine import DistillationHook

EMA = dict(type='EMAHook', momentum=0.3)
SGD = dict(type='SGD', lr=0.02, momentum=0.9)


class Spy(Hook):
    """Keeps the losses of every iteration."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append({name: value.item() for name, value in outputs.items()})


def teaching(settings: dict, weight: float | None = None) -> dict:
    """The hook, with its own weights or with one for all losses."""
    settings = dict(settings)
    if weight is not None:
        settings['features'] = dict(layers=settings['features'], weight=weight)
        if 'logits' in settings:
            settings['logits'] = dict(weight=weight)
    return dict(type='DistillationHook', **settings)


def names_of(settings: dict) -> set[str]:
    return {f'loss_distill_{name}' for name in ('logits', 'features') if name in settings}


def test_it_changes_what_is_learned_and_nothing_else(case, tmp_path) -> None:
    model, settings = case
    spy = Spy()
    plain = trained(training(tmp_path / 'plain', model, hooks=[EMA]))
    off = trained(training(tmp_path / 'off', model, hooks=[EMA, teaching(settings, 0)]))
    taught = trained(training(tmp_path / 'taught', model, hooks=[EMA, teaching(settings)]), spy)
    assert changed(weights(plain), weights(off)) == []  # bit for bit
    assert any(name.startswith('backbone') for name in changed(weights(plain), weights(taught)))
    for found in spy.losses:
        assert all(found[name] > 0 for name in names_of(settings))
        parts = sum(value for name, value in found.items() if 'loss_' in name)
        assert found['loss'] == pytest.approx(parts, rel=1e-5)
    assert len(spy.losses) == 4
    # No trace in what is saved, and none in the model after the training.
    one, other = (
        load_checkpoint_file(tmp_path / name / 'iter_4.pth') for name in ('off', 'taught')
    )
    for key in ('state_dict', 'ema_state_dict'):
        assert one[key].keys() == load_checkpoint_file(tmp_path / 'plain/iter_4.pth')[key].keys()
        assert one[key].keys() == other[key].keys()
    groups = [[g['params'] for g in file['optimizer']['param_groups']] for file in (one, other)]
    assert groups[0] == groups[1]
    hooks = [h for m in taught.model.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
    assert not any(hooks)


def test_the_log_shows_the_losses(of_detector, tmp_path) -> None:
    hook = dict(type='DistillationHook', teacher=of_detector, features=['neck'])
    trained(training(tmp_path, detector(), hooks=[hook], iterations=2))
    lines = [line for path in tmp_path.rglob('*.log') for line in path.read_text().splitlines()]
    assert sum('loss_distill_features: ' in line for line in lines) == 2
    assert sum('parameters, frozen): loss_distill_features with weight 1.' in x for x in lines) == 1


def test_the_teacher_stays_as_it_is(case, tmp_path) -> None:
    model, settings = case
    runner = trained(training(tmp_path, model, hooks=[teaching(settings)], iterations=2))
    teacher = next(h for h in runner.hooks if isinstance(h, DistillationHook)).teacher.model
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    saved = load_checkpoint_file(settings['teacher']['checkpoint'])['state_dict']
    assert changed(dict(saved), dict(teacher.state_dict())) == []


def test_a_resumed_run_ends_with_the_same_weights(case, tmp_path) -> None:
    _, settings = case
    kind = segmentor if 'logits' in settings else detector
    model = kind(drop_path_rate=0.0)
    if 'decode_head' in model:
        model['decode_head']['dropout_ratio'] = 0.0  # mmengine saves no random generators
    hooks = [EMA, teaching(settings)]
    whole = trained(training(tmp_path / 'whole', model, hooks=hooks))
    again = trained(
        training(tmp_path / 'again', model, hooks=hooks), resume=tmp_path / 'whole/iter_2.pth'
    )
    assert again.iter == 4
    assert changed(weights(whole), weights(again)) == []
    files = [load_checkpoint_file(tmp_path / name / 'iter_4.pth') for name in ('whole', 'again')]
    assert changed(*(dict(file['ema_state_dict']) for file in files)) == []


@pytest.fixture
def _amp_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's wrapper insists on a GPU; its code runs here with torch's scaler for CPUs."""
    monkeypatch.setattr(amp_module, 'is_cuda_available', lambda: True)
    scaler = functools.partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(amp_module, 'GradScaler', scaler)


@pytest.mark.usefixtures('_amp_without_gpu')
@pytest.mark.parametrize(
    'optim_wrapper',
    [
        pytest.param(dict(type='OptimWrapper', accumulative_counts=2), id='accumulation'),
        pytest.param(dict(type='OptimWrapper', clip_grad=dict(max_norm=0.1)), id='clipping'),
        pytest.param(dict(type='AmpOptimWrapper', loss_scale=dict(init_scale=64.0)), id='amp'),
    ],
)
def test_regimes(optim_wrapper, of_segmentor, tmp_path) -> None:
    settings = dict(teacher=of_segmentor, logits=dict(), features=['backbone'])
    how = dict(optim_wrapper=dict(optimizer=SGD, **optim_wrapper))
    spy = Spy()
    plain = trained(training(tmp_path / 'plain', segmentor(), **how))
    off = trained(training(tmp_path / 'off', segmentor(), [teaching(settings, 0)], **how))
    taught = trained(training(tmp_path / 'taught', segmentor(), [teaching(settings)], **how), spy)
    assert changed(weights(plain), weights(off)) == []
    assert changed(weights(plain), weights(taught))
    assert all(0 < losses[name] < 100 for losses in spy.losses for name in names_of(settings))


def test_blocks_that_are_computed_again(of_segmentor, tmp_path) -> None:
    """Gradient checkpointing changes nothing."""
    hook = dict(
        type='DistillationHook', teacher=of_segmentor, logits=dict(), features=['backbone.stages.1']
    )
    found = [
        weights(trained(training(tmp_path / str(again), segmentor(with_cp=again), [hook])))
        for again in (False, True)
    ]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


def test_pruned_weights_stay_zero_beside_a_teacher(case, tmp_path) -> None:
    """Of any layer, kept by the hook that takes zeros as masks."""
    model, settings = case
    start = make_teacher(tmp_path / 'start', model, seed=3)['checkpoint']
    content = load_checkpoint_file(start)
    pruned = {}
    for name, weight in content['state_dict'].items():
        if name.startswith('backbone.stages') and weight.ndim == 4:
            pruned[name] = torch.rand(weight.shape) < 0.5
            weight[pruned[name]] = 0
    save_checkpoint_file(content, start)
    hooks = [EMA, dict(type='KeepSparsityHook'), teaching(settings)]
    trained(training(tmp_path / 'work', model, hooks, load_from=start))
    file = load_checkpoint_file(tmp_path / 'work/iter_4.pth')
    assert pruned
    for name, zeros in pruned.items():
        assert not file['state_dict'][name][zeros].any(), name
        assert not file['ema_state_dict'][f'module.{name}'][zeros].any(), name
    before = {name: content['state_dict'][name] for name in pruned}
    assert changed(before, {name: file['state_dict'][name] for name in pruned})


def test_a_run_that_only_tests_reads_no_teacher(tmp_path) -> None:
    hook = DistillationHook(dict(config='absent.py', checkpoint='absent.pth'), features=['neck'])
    runner = build_runner(training(tmp_path, detector()))  # its loop is not built yet
    hook.before_run(runner)
    assert not hasattr(hook, 'teacher')


@pytest.mark.slow
@pytest.mark.ci
def test_two_processes(of_segmentor, tmp_path) -> None:
    here = Path(__file__).parent
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    environment['PYTHONPATH'] = os.pathsep.join(map(str, (here.parents[1], here)))
    launcher = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    files = (of_segmentor['config'], of_segmentor['checkpoint'])
    done = subprocess.run(
        [*launcher, str(here / 'worker.py'), str(tmp_path), *files],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f'rank_{rank}.pth') for rank in range(2)]
    parameters = [rank['parameters'] for rank in ranks]
    assert changed(*parameters) == []
    assert ranks[0]['teacher'] == ranks[1]['teacher']
    saved = load_checkpoint_file(tmp_path / 'work/iter_2.pth')['state_dict']
    assert saved.keys() == load_checkpoint_file(of_segmentor['checkpoint'])['state_dict'].keys()
