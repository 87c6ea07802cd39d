"""Zeros of a checkpoint that a real Runner loads or resumes from: in every file it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import EMA, POINTWISE, ToyModel, build_runner, train_with_log
from toy import dynamic_hook as hook

from mmsw import sparsity
from mmsw.checkpoint import load_checkpoint_file
from mmsw.errors import SparsityError

REPORT = dict(type='SparsityReportHook')
FROM_CHECKPOINT = hook(start='from_checkpoint', sparsity=None, end_iter=0)
LINEAR = 'backbone.stages.0.0.pointwise_conv1'


def train(work_dir: Path, *hooks: dict, load_from: Path | None = None, resume=False, iters=2):
    load_from = load_from and str(load_from)
    runner = build_runner(
        work_dir, None, max_iters=iters, hooks=list(hooks), load_from=load_from, resume=resume
    )
    runner.train()
    return runner


@pytest.fixture(scope='module')
def dense_file(tmp_path_factory) -> Path:
    """A file of a run that pruned nothing."""
    folder = tmp_path_factory.mktemp('dense')
    train(folder)
    return folder / 'iter_2.pth'


@pytest.fixture(scope='module')
def scope_file(tmp_path_factory) -> Path:
    """A file of a run that pruned ordinary layers, without what the hook notes."""
    folder = tmp_path_factory.mktemp('scope')
    train(folder, hook(scope=POINTWISE, end_iter=0), EMA)
    return without_state(folder / 'iter_2.pth')


def without_state(path: Path) -> Path:
    checkpoint = load_checkpoint_file(path)
    del checkpoint['dynamic_sparsity']
    torch.save(checkpoint, path)
    return path


def small_kernels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if '.paths.' in key and 'weight' in key}


@pytest.fixture
def zeroed_file(dense_file, tmp_path) -> Path:
    """The same with half of its filters zero, though every mask keeps all."""
    checkpoint = load_checkpoint_file(dense_file)
    for key, weight in small_kernels(checkpoint['state_dict']).items():
        assert checkpoint['state_dict'][key.replace('weight', 'mask')].all()
        weight[::2] = 0
    torch.save(checkpoint, tmp_path / 'zeroed.pth')
    return tmp_path / 'zeroed.pth'


def assert_zeros_survive(path: Path, before: dict[str, Tensor], names: tuple[str, ...]) -> None:
    """All that is zero in ``before``, by key, is zero in a file and pruned by its masks."""
    checkpoint = load_checkpoint_file(path)
    for name in names:
        state = {k.removeprefix('module.'): v for k, v in checkpoint[name].items()}
        for key, weight in before.items():
            zero = weight == 0
            assert zero.any()
            assert not torch.equal(state[key][~zero], weight[~zero]), 'nothing was trained'
            assert torch.count_nonzero(state[key][zero]) == 0
            assert torch.equal(state[key.replace('weight', 'mask')], ~zero)


@pytest.mark.parametrize(
    'hooks',
    [[REPORT], [REPORT, EMA], [FROM_CHECKPOINT], [FROM_CHECKPOINT, EMA, REPORT]],
    ids=['report', 'report-ema', 'dynamic', 'all'],
)
def test_weights_zeroed_by_hand_stay_zero(tmp_path, zeroed_file, hooks) -> None:
    before = small_kernels(load_checkpoint_file(zeroed_file)['state_dict'])
    train(tmp_path / 'new', *hooks, load_from=zeroed_file)
    names = ('state_dict', 'ema_state_dict') if EMA in hooks else ('state_dict',)
    assert_zeros_survive(tmp_path / 'new/iter_2.pth', before, names)


def test_without_the_hooks_they_are_lost(tmp_path, zeroed_file) -> None:
    """The control."""
    before = small_kernels(load_checkpoint_file(zeroed_file)['state_dict'])
    runner = train(tmp_path / 'new', load_from=zeroed_file)
    now = runner.model.state_dict()
    assert all(torch.count_nonzero(now[key][before[key] == 0]) > 0 for key in before)


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('hooks', [[REPORT], [REPORT, EMA]], ids=['plain', 'ema'])
@pytest.mark.parametrize('resume', [False, True], ids=['load_from', 'resume'])
def test_masks_of_ordinary_layers_are_kept(tmp_path, scope_file, resume, hooks, prefix) -> None:
    checkpoint = load_checkpoint_file(scope_file)
    state = checkpoint['state_dict']
    source = {k.removeprefix('module.'): v for k, v in checkpoint['ema_state_dict'].items()}
    before = {}
    for key, mask in state.items():
        if key.endswith('pointwise_conv1.mask'):
            assert torch.equal(source[key], mask)
            before[key.replace('mask', 'weight')] = state[key.replace('mask', 'weight')]
    assert len(before) == 5
    checkpoint['state_dict'] = {prefix + key: value for key, value in state.items()}
    if prefix:
        del checkpoint['ema_state_dict']
    torch.save(checkpoint, tmp_path / 'file.pth')
    train(tmp_path / 'new', *hooks, load_from=tmp_path / 'file.pth', resume=resume, iters=4)
    names = ('state_dict', 'ema_state_dict') if EMA in hooks else ('state_dict',)
    assert_zeros_survive(tmp_path / 'new/iter_4.pth', before, names)


@pytest.mark.parametrize('hooks', [[REPORT], [REPORT, EMA]], ids=['plain', 'ema'])
def test_files_of_torch_prune_are_understood(tmp_path, dense_file, hooks, caplog) -> None:
    checkpoint = load_checkpoint_file(dense_file)
    state, before = checkpoint['state_dict'], {}
    small = next(iter(small_kernels(state)))
    for key in (f'{LINEAR}.weight', small, f'{LINEAR}.bias'):
        weight = state.pop(key)
        mask = torch.ones_like(weight)
        mask[::2] = 0
        state[f'{key}_orig'], state[f'{key}_mask'] = weight, mask
        before[key] = weight * mask
    torch.save(checkpoint, tmp_path / 'pruned.pth')
    runner = build_runner(
        tmp_path / 'new', None, max_iters=2, hooks=hooks, load_from=str(tmp_path / 'pruned.pth')
    )
    train_with_log(runner, caplog)
    assert f'also pruned {LINEAR}.bias; only weights' in caplog.text
    del before[f'{LINEAR}.bias']
    names = ('state_dict', 'ema_state_dict') if EMA in hooks else ('state_dict',)
    assert_zeros_survive(tmp_path / 'new/iter_2.pth', before, names)


@pytest.mark.parametrize('hooks', [[REPORT], [REPORT, EMA]], ids=['plain', 'ema'])
def test_resuming_from_filters_zeroed_by_hand_is_refused(tmp_path, zeroed_file, hooks) -> None:
    """The counters and the optimizer are of a dense training; a new run keeps the zeros."""
    with pytest.raises(SparsityError, match=r'cannot resume: 1428 filters of 10 .*\(load_from'):
        train(tmp_path / 'new', *hooks, load_from=zeroed_file, resume=True, iters=4)
    assert not list((tmp_path / 'new').glob('*.pth'))


def test_a_single_zero_does_not_stop_a_resumed_run(tmp_path, dense_file, caplog) -> None:
    checkpoint = load_checkpoint_file(dense_file)
    next(iter(small_kernels(checkpoint['state_dict']).values()))[0, 0, 0, 0] = 0
    torch.save(checkpoint, tmp_path / 'file.pth')
    load_from = str(tmp_path / 'file.pth')
    runner = build_runner(
        tmp_path / 'new', None, max_iters=4, hooks=[REPORT], load_from=load_from, resume=True
    )
    train_with_log(runner, caplog)
    assert '1 single weights of the checkpoint are zero' in caplog.text
    assert not sparsity.report(runner.model).total.is_sparse


def test_filters_that_have_just_grown_are_not_pruned(tmp_path) -> None:
    """They are zero in the file of a dynamic training, and about to be trained."""
    train(tmp_path / 'dynamic', hook(interval=2), iters=4)
    path = tmp_path / 'dynamic/iter_2.pth'
    state = load_checkpoint_file(path)['state_dict']
    assert sparsity.masks_from_zeros(state), 'something has just grown'
    runner = train(tmp_path / 'new', REPORT, load_from=path)
    for name, mask in sparsity.masks(runner.model).items():
        assert torch.equal(mask, state[f'{name}.mask'])


def test_a_bare_state_dict_is_understood(tmp_path, zeroed_file) -> None:
    state = load_checkpoint_file(zeroed_file)['state_dict']
    torch.save(state, tmp_path / 'bare.pth')
    train(tmp_path / 'new', REPORT, load_from=tmp_path / 'bare.pth')
    assert_zeros_survive(tmp_path / 'new/iter_2.pth', small_kernels(state), ('state_dict',))


def test_masks_that_belong_to_nothing_here_are_left(tmp_path, zeroed_file) -> None:
    """A layer of a stranger's that has something called mask of its own is no layer of ours."""
    checkpoint = load_checkpoint_file(zeroed_file)
    stranger = dict(weight=torch.zeros(2, 2), mask=torch.ones(2, 2, dtype=torch.bool))
    checkpoint['state_dict'].update({f'stranger.{key}': value for key, value in stranger.items()})
    runner = build_runner(tmp_path / 'new', None, hooks=[REPORT])
    runner.model.stranger = torch.nn.Linear(2, 2)
    runner.model.stranger.register_buffer('mask', stranger['mask'].clone())
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    assert checkpoint['state_dict']['stranger.mask'].all()


class PrunedAtInit(ToyModel):
    """Its ordinary layers get their masks with the initial weights, as from a pretrained file."""

    def init_weights(self) -> None:
        super().init_weights()
        self.initial = {}
        for name in sparsity.attach_masks(self, POINTWISE):
            weight = self.get_submodule(name).weight
            sparsity.set_masks(self, {name: torch.arange(len(weight)).view(-1, 1) % 2 == 0})
            self.initial[f'{name}.weight'] = weight.clone()


@pytest.mark.parametrize('average', [EMA, dict(**EMA, begin_iter=3)], ids=['at-once', 'later'])
@pytest.mark.parametrize('sparse_training', [[], [FROM_CHECKPOINT]], ids=['report', 'dynamic'])
def test_averages_get_masks_that_come_with_the_initial_weights(
    tmp_path, sparse_training, average, sparse_checkpoint
) -> None:
    """Without them the average would take its buffers from others than those of the model."""
    model = PrunedAtInit(dict(type='Pretrained', checkpoint=str(sparse_checkpoint)))
    hooks = [REPORT, average, *sparse_training]
    build_runner(tmp_path, None, max_iters=4, hooks=hooks, model=model).train()
    before = {key: weight.detach() for key, weight in model.initial.items()}
    assert_zeros_survive(tmp_path / 'iter_4.pth', before, ('state_dict', 'ema_state_dict'))
