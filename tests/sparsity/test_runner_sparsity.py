"""Pruned weights are exactly zero in every file that a real Runner writes."""

from __future__ import annotations

import functools

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp_module
import pytest
import torch
from mmengine.hooks import Hook
from toy import build_runner, train_with_log
from two_processes import run_in_two_processes

from mmsw import sparsity
from mmsw.engine.hooks import SparsityLostError, SparsityReportHook

ADAMW = dict(type='AdamW', lr=1e-2, weight_decay=0.05)
SGD = dict(type='SGD', lr=1e-2, momentum=0.9, weight_decay=1e-2)
EMA = dict(type='EMAHook', momentum=0.3)


class FillMasks(Hook):
    """Switches every mask off, before training or after a given iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, after_iter: int | None = None) -> None:
        self.after_iter = after_iter

    def _fill(self, runner) -> None:
        for _, layer in sparsity.masked_layers(runner.model):
            layer.mask.fill_(True)

    def before_train(self, runner) -> None:
        if self.after_iter is None:
            self._fill(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.after_iter == batch_idx + 1:
            self._fill(runner)


@pytest.mark.parametrize(
    ('optim_wrapper', 'hooks'),
    [
        pytest.param(dict(optimizer=ADAMW), [], id='adamw-weight-decay'),
        pytest.param(dict(optimizer=SGD), [], id='sgd-momentum'),
        pytest.param(dict(optimizer=ADAMW, accumulative_counts=2), [], id='accumulation'),
        pytest.param(dict(optimizer=SGD, clip_grad=dict(max_norm=0.1)), [], id='clipping'),
        pytest.param(dict(optimizer=ADAMW), [EMA], id='ema'),
        pytest.param(
            dict(optimizer=SGD), [dict(**EMA, update_buffers=True)], id='ema-with-buffers'
        ),
    ],
)
def test_every_saved_file_is_sparse(
    tmp_path, sparse_checkpoint, lost_zeros, optim_wrapper, hooks
) -> None:
    build_runner(
        tmp_path,
        sparse_checkpoint,
        dict(type='OptimWrapper', **optim_wrapper),
        hooks=[dict(type='SparsityReportHook'), *hooks],
    ).train()
    expected = {'state_dict': 0, 'ema_state_dict': 0} if hooks else {'state_dict': 0}
    for iteration in (2, 4):
        assert lost_zeros(tmp_path / f'iter_{iteration}.pth') == expected


@pytest.mark.parametrize('init_scale', [2.0**10, 3e38], ids=['steps', 'first-step-overflows'])
def test_amp_wrapper(tmp_path, sparse_checkpoint, lost_zeros, monkeypatch, init_scale) -> None:
    """mmengine's wrapper insists on a GPU; its code runs here with torch's scaler for CPUs."""
    monkeypatch.setattr(amp_module, 'is_cuda_available', lambda: True)
    scaler = functools.partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(amp_module, 'GradScaler', scaler)
    runner = build_runner(
        tmp_path,
        sparse_checkpoint,
        dict(
            type='AmpOptimWrapper',
            dtype='bfloat16',
            loss_scale=dict(init_scale=init_scale, backoff_factor=2.0**-100),
            optimizer=ADAMW,
            clip_grad=dict(max_norm=1.0),
        ),
    )
    runner.train()
    overflowed = runner.optim_wrapper.loss_scaler.get_scale() < init_scale
    assert overflowed == (init_scale == 3e38)
    assert lost_zeros(tmp_path / 'iter_4.pth') == {'state_dict': 0}


def test_save_resume_save(tmp_path, sparse_checkpoint, lost_zeros) -> None:
    build_runner(tmp_path, sparse_checkpoint, max_iters=2, hooks=_guarded(EMA)).train()
    resumed = build_runner(
        tmp_path, None, hooks=_guarded(EMA), resume=True, load_from=str(tmp_path / 'iter_2.pth')
    )
    resumed.train()
    assert resumed.iter == 4
    assert lost_zeros(tmp_path / 'iter_4.pth') == {'state_dict': 0, 'ema_state_dict': 0}


def test_two_processes(tmp_path, sparse_checkpoint, lost_zeros) -> None:
    run_in_two_processes('ddp_worker.py', tmp_path, sparse_checkpoint)
    assert lost_zeros(tmp_path / 'iter_4.pth') == {'state_dict': 0}


def test_without_masks_the_zeros_are_lost(tmp_path, sparse_checkpoint, lost_zeros) -> None:
    """The control: the same run with the masks switched off, which nobody guards."""
    build_runner(tmp_path, sparse_checkpoint, hooks=[FillMasks()]).train()
    assert lost_zeros(tmp_path / 'iter_4.pth')['state_dict'] > 1000


def test_hook_stops_a_run_that_loses_its_zeros(tmp_path, sparse_checkpoint, lost_zeros) -> None:
    hooks = [SparsityReportHook(), FillMasks(after_iter=2)]
    runner = build_runner(tmp_path, sparse_checkpoint, hooks=hooks)
    with pytest.raises(SparsityLostError, match=r'pruned weights in .* are not zero in state_dict'):
        runner.train()
    assert lost_zeros(tmp_path / 'iter_2.pth') == {'state_dict': 0}
    assert not (tmp_path / 'iter_4.pth').exists()


def test_hook_looks_at_the_averaged_weights(tmp_path, sparse_checkpoint) -> None:
    class SpoilAverage(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
            for name, parameter in ema.ema_model.named_parameters():
                if '.paths.' in name:
                    parameter.data.add_(1.0)

    runner = build_runner(tmp_path, sparse_checkpoint, hooks=[*_guarded(EMA), SpoilAverage()])
    with pytest.raises(SparsityLostError, match='are not zero'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_dense_start_says_so_once(tmp_path, caplog) -> None:
    runner = build_runner(tmp_path, None)
    train_with_log(runner, caplog)
    assert sum('it trains dense' in record.message for record in caplog.records) == 1
    assert (tmp_path / 'iter_4.pth').exists()


def test_require_sparse(tmp_path) -> None:
    hooks = [dict(type='SparsityReportHook', require_sparse=True)]
    runner = build_runner(tmp_path, None, hooks=hooks)
    with pytest.raises(SparsityLostError, match='nothing is pruned, but require_sparse=True'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_density_is_logged_at_start_and_at_each_save(tmp_path, sparse_checkpoint, caplog) -> None:
    runner = build_runner(tmp_path, sparse_checkpoint)
    train_with_log(runner, caplog)
    reports = [r.message for r in caplog.records if r.message.startswith('Sparsity')]
    assert len(reports) == 3  # start, iteration 2, iteration 4
    assert all('2013/2856 filters (70.48%)' in text for text in reports)
    assert all(f'stage {stage}' in text for text in reports for stage in range(4))


def _guarded(*hooks: dict) -> list[dict]:
    return [dict(type='SparsityReportHook'), *hooks]
