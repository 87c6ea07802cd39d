"""KeepSparsityHook: zeros of any network, wherever its weights come from, in every file."""

from __future__ import annotations

import copy

import pytest
import torch
import toy
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner
from plain_model import (
    KEEP,
    PRUNED,
    PlainModel,
    assert_kept,
    by_hand,
    kept,
    pruned_state,
    saved,
    train,
)
from torch import Tensor, nn
from toy import build_runner, train_with_log
from two_processes import run_in_two_processes

from mmsw.apis.portable_runner import PortableRunner
from mmsw.checkpoint import load_checkpoint_file
from mmsw.engine import KeepSparsityHook
from mmsw.engine.model_wrapper import refuse_sharded
from mmsw.errors import MmswError, SparsityLostError, UsageError
from mmsw.sparsity import masked_layers

EMA = dict(type='EMAHook', momentum=0.3)
BACKBONE = ('backbone.conv1', 'backbone.conv2')


@pytest.fixture(params=[Runner, PortableRunner], ids=['mmengine', 'mmsw'])
def either_runner(request, monkeypatch) -> type[Runner]:
    """Both runners, one after the other."""
    monkeypatch.setattr(toy, 'Runner', request.param)
    return request.param


def with_masks(state: dict[str, Tensor], as_number: bool = False) -> dict[str, Tensor]:
    masks = {f'{name}.mask': kept(name, state[f'{name}.weight']) for name in PRUNED}
    return {**state, **{k: mask.float() if as_number else mask for k, mask in masks.items()}}


def unpruned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with other values where it is zero."""
    return {k: v.masked_fill(v == 0, 0.1) if 'weight' in k else v for k, v in state.items()}


def as_torch_prune(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = dict(state)
    for name in PRUNED:
        weight = state.pop(f'{name}.weight')
        state[f'{name}.weight_orig'] = weight.masked_fill(weight == 0, 0.1)
        state[f'{name}.weight_mask'] = kept(name, weight).float()
    return state


@pytest.mark.parametrize(
    'form',
    [
        dict,
        with_masks,
        lambda state: with_masks(state, as_number=True),
        lambda state: with_masks(unpruned(state)),
        as_torch_prune,
        lambda state: {f'module.{key}': value for key, value in state.items()},
    ],
    ids=['zeros', 'masks', 'numbers', 'masks-over-weights', 'torch-prune', 'module'],
)
def test_load_from(tmp_path, either_runner, form) -> None:
    path = saved(tmp_path / 'start.pth', form(pruned_state()))
    train(tmp_path / 'new', load_from=path)
    assert_kept(tmp_path / 'new/iter_2.pth')


@pytest.mark.parametrize('form', [dict, with_masks, as_torch_prune])
def test_pretrained_backbone(tmp_path, either_runner, form) -> None:
    state = {
        key.removeprefix('backbone.'): value
        for key, value in form(pruned_state()).items()
        if key.startswith('backbone.')
    }
    path = saved(tmp_path / 'start.pth', state)
    model = PlainModel(dict(type='Pretrained', checkpoint=path))
    train(tmp_path / 'new', KEEP, EMA, model=model)
    assert_kept(tmp_path / 'new/iter_2.pth', BACKBONE, ema=True)


def test_set_by_hand(tmp_path, either_runner) -> None:
    train(tmp_path, model=by_hand())
    assert_kept(tmp_path / 'iter_2.pth')


def test_without_the_hook_zeros_are_lost(tmp_path) -> None:
    """The control."""
    runner = train(tmp_path, dict(type='EMAHook'), model=by_hand())
    for name in PRUNED:
        weight = runner.model.get_submodule(name).weight
        assert torch.count_nonzero(weight[~kept(name, weight)]) > 0


@pytest.mark.parametrize('hooks', [[KEEP], [EMA, KEEP], [KEEP, dict(**EMA, update_buffers=True)]])
def test_save_resume_save(tmp_path, either_runner, hooks) -> None:
    train(tmp_path, *hooks, model=by_hand())
    first = load_checkpoint_file(tmp_path / 'iter_2.pth')
    assert first['meta']['mmsw']['scope'] == list(PRUNED)
    runner = train(tmp_path, *hooks, max_iters=4, resume=True)
    assert runner.iter == 4
    assert_kept(tmp_path / 'iter_4.pth', ema=len(hooks) > 1)


def test_a_resumed_run_goes_by_its_masks_alone(tmp_path, either_runner) -> None:
    """Weights that training happened to bring to zero are trained on, whatever their number."""
    train(tmp_path, model=by_hand())
    checkpoint = load_checkpoint_file(tmp_path / 'iter_2.pth')
    checkpoint['state_dict']['head.weight'][:2] = 0
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    train(tmp_path, model=None, max_iters=4, resume=True)
    assert_kept(tmp_path / 'iter_4.pth')


def test_resuming_from_zeros_without_masks(tmp_path, either_runner) -> None:
    """The optimizer remembers a dense training; what it would move is forgotten."""
    train(tmp_path, dict(type='EMAHook'), max_iters=2)
    checkpoint = load_checkpoint_file(tmp_path / 'iter_2.pth')
    for name in PRUNED:
        weight = checkpoint['state_dict'][f'{name}.weight']
        weight.masked_fill_(~kept(name, weight), 0.0)
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    train(tmp_path, max_iters=4, resume=True)
    assert_kept(tmp_path / 'iter_4.pth')


@pytest.mark.parametrize(
    ('source', 'names'), [('auto', PRUNED), ('zeros', PRUNED), ('mask', ('fc',))]
)
def test_sources(tmp_path, either_runner, source, names) -> None:
    state = pruned_state()
    state['fc.mask'] = kept('fc', state['fc.weight'])
    path = saved(tmp_path / 'start.pth', state)
    train(tmp_path / 'new', dict(**KEEP, source=source), load_from=path)
    assert_kept(tmp_path / 'new/iter_2.pth', tuple(names))


def test_zeros_alone_decide_where_they_shall(tmp_path, either_runner) -> None:
    """A mask of the file over weights that are not zero prunes nothing then."""
    state = pruned_state()
    state['head.mask'] = torch.zeros(4, 8, dtype=torch.bool)
    path = saved(tmp_path / 'start.pth', state)
    runner = train(tmp_path / 'new', dict(**KEEP, source='zeros'), load_from=path)
    assert torch.count_nonzero(runner.model.head.weight) == 32


def test_no_warning_of_zeros_that_the_hook_keeps(tmp_path, either_runner, caplog) -> None:
    path = saved(tmp_path / 'start.pth', pruned_state())
    settings = dict(model=PlainModel(), load_from=path)
    train_with_log(build_runner(tmp_path / 'a', None, hooks=[KEEP], **settings), caplog)
    assert 'have no mask' not in caplog.text
    settings['model'] = PlainModel()
    train_with_log(build_runner(tmp_path / 'b', None, hooks=[EMA], **settings), caplog)
    assert ('have no mask' in caplog.text) == (either_runner is PortableRunner), 'the control'


def test_scope(tmp_path, either_runner) -> None:
    train(tmp_path, dict(**KEEP, scope='^backbone'), model=by_hand())
    assert_kept(tmp_path / 'iter_2.pth', BACKBONE)


def test_the_log_says_once_what_was_found(tmp_path, either_runner, caplog) -> None:
    model = by_hand()
    with torch.no_grad():
        model.head.weight[0, 0] = 0
    runner = build_runner(tmp_path, None, hooks=[KEEP], model=model)
    train_with_log(runner, caplog)
    said = [record.message for record in caplog.records if 'Sparsity: ' in record.message]
    assert [line for text in said for line in text.splitlines()] == [
        'Sparsity: 3 layers keep 588 of 1176 weights (50.00%) at zero; by pattern: filter in '
        '1, channel in 1, 2:4 in 1',
        '1 layers have too few zeros to be meant (1 in all), and are trained: head',
        '1 layers have zeros that their initialisation left, and are trained: correction',
    ]


def test_nothing_found_is_an_error(tmp_path, either_runner) -> None:
    with pytest.raises(SparsityLostError, match=r'found nothing .* 4 layers are dense; 1 layers'):
        train(tmp_path)
    assert not list(tmp_path.glob('*.pth'))


def test_zeros_that_the_run_initialises_anew(tmp_path, either_runner) -> None:
    model = PlainModel(dict(type='Kaiming', layer='Conv2d'))
    model.load_state_dict(pruned_state())
    with pytest.raises(SparsityLostError, match=r'backbone\.conv1\.weight, .* Call init_weights\('):
        train(tmp_path, model=model)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(source='file'), r"source must be one of .* got 'file'"),
        (dict(scope='('), 'scope must be a regular expression'),
        (dict(min_share=0.0), r'min_share must be in \(0, 1\]'),
    ],
)
def test_settings_that_make_no_sense(settings, message) -> None:
    with pytest.raises(MmswError, match=message):
        KeepSparsityHook(**settings)


def test_a_hook_that_chooses_masks_beside_it(tmp_path) -> None:
    with pytest.raises(UsageError, match=r'DynamicSparsityHook chooses masks .* leave KeepSpars'):
        train(tmp_path, KEEP, toy.dynamic_hook(scope=r'conv\d\.weight'))


class FullyShardedDataParallel(nn.Sequential):
    """Of the name alone."""


def test_weights_in_pieces_are_refused() -> None:
    net = nn.Sequential(FullyShardedDataParallel(nn.Linear(2, 2)))
    with pytest.raises(UsageError, match=r'KeepSparsityHook cannot work under FullySh.* MMDistr'):
        refuse_sharded(net, 'KeepSparsityHook')
    refuse_sharded(net[0][0], 'KeepSparsityHook')


class Thaw(Hook):
    """Freezes the backbone, and trains it from the second iteration on."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        runner.model.backbone.requires_grad_(batch_idx >= 1)


def test_frozen_layers_that_are_trained_later(tmp_path) -> None:
    model = by_hand()
    model.backbone.requires_grad_(False)
    runner = build_runner(tmp_path, None, hooks=[KEEP, Thaw()], model=model, max_iters=4)
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(True)  # for the optimizer, which was told of all
    model.backbone.requires_grad_(False)
    runner.train()
    assert_kept(tmp_path / 'iter_4.pth')


class Fill(Hook):
    """Opens the masks behind the hook, and spoils the weights or their average."""

    priority = 'VERY_HIGH'

    def __init__(self, average: bool) -> None:
        self.average = average

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        net = runner.model
        if self.average:
            net = next(h.ema_model.module for h in runner.hooks if hasattr(h, 'ema_model'))
        with torch.no_grad():
            for _, layer in masked_layers(net):
                layer.weight.fill_(0.5)


@pytest.mark.parametrize('average', [False, True], ids=['weights', 'average'])
def test_a_run_that_loses_zeros_stops_before_it_writes(tmp_path, average) -> None:
    with pytest.raises(SparsityLostError, match=r'588 pruned weights in 3 layers are not zero in'):
        train(tmp_path, KEEP, EMA, Fill(average), model=by_hand())
    assert not list(tmp_path.glob('*.pth'))


def test_the_file_loads_without_masks(tmp_path) -> None:
    train(tmp_path, model=by_hand())
    state = load_checkpoint_file(tmp_path / 'iter_2.pth')['state_dict']
    plain = PlainModel()
    answer = plain.load_state_dict(state, strict=False)
    assert answer.missing_keys == []
    assert sorted(answer.unexpected_keys) == sorted(f'{name}.mask' for name in PRUNED)
    for name in PRUNED:
        weight = plain.get_submodule(name).weight
        assert torch.equal(weight != 0, kept(name, weight))


def test_a_network_is_what_it_was_after_the_run(tmp_path) -> None:
    runner = train(tmp_path, model=by_hand())
    assert not any(m._load_state_dict_pre_hooks for m in runner.model.modules())
    assert not runner.optim_wrapper.optimizer._optimizer_step_post_hooks
    other = copy.deepcopy(runner.model)
    assert [name for name, _ in masked_layers(other)] == list(PRUNED)


@pytest.mark.parametrize('shape', [(1, 12), (8, 12)], ids=['other-shape', 'same-shape'])
def test_a_mask_of_the_networks_own_does_not_stop_a_resumed_run(
    tmp_path, either_runner, shape
) -> None:
    def model() -> PlainModel:
        model = by_hand()
        model.head.register_buffer('mask', torch.full(shape, 0.5))
        return model

    train(tmp_path, model=model())
    runner = train(tmp_path, model=model(), max_iters=4, resume=True)
    assert torch.equal(runner.model.head.mask, torch.full(shape, 0.5))
    state = load_checkpoint_file(tmp_path / 'iter_4.pth')['state_dict']
    assert torch.count_nonzero(state['fc.weight']) == 48


def test_what_is_no_mask_is_left_out_with_a_line(tmp_path, either_runner, caplog) -> None:
    state = {**pruned_state(), 'head.mask': torch.ones(1, 12)}
    path = saved(tmp_path / 'start.pth', state)
    runner = build_runner(tmp_path / 'new', None, hooks=[KEEP], model=PlainModel(), load_from=path)
    train_with_log(runner, caplog)
    said = [r.message for r in caplog.records if 'head.mask is torch.float32' in r.message]
    assert len(said) == 1
    assert said[0].endswith('It is no pruning mask, and is left out.')


def test_a_layer_that_is_pruned_whole(tmp_path, caplog) -> None:
    state = pruned_state()
    state['fc.weight'].zero_()
    path = saved(tmp_path / 'start.pth', state)
    runner = build_runner(tmp_path / 'new', None, hooks=[KEEP], model=PlainModel(), load_from=path)
    train_with_log(runner, caplog)
    assert 'nothing is left of fc' in caplog.text
    assert not runner.model.fc.weight.any()


def test_a_test_run_is_left_alone(tmp_path) -> None:
    runner = build_runner(tmp_path, None, hooks=[KEEP], model=PlainModel())
    runner.call_hook('before_run')
    assert not any(m._load_state_dict_pre_hooks for m in runner.model.modules())


def test_mmengines_flexible_runner(tmp_path, monkeypatch) -> None:
    """It loads before it calls the hooks for the first time."""

    def runner(model, cfg, randomness, **settings) -> FlexibleRunner:
        return FlexibleRunner(model, **settings)

    monkeypatch.setattr(toy, 'Runner', runner)
    path = saved(tmp_path / 'start.pth', with_masks(pruned_state()))
    train(tmp_path / 'new', load_from=path)
    assert_kept(tmp_path / 'new/iter_2.pth')


def test_two_processes(tmp_path) -> None:
    path = saved(tmp_path / 'start.pth', pruned_state())
    run_in_two_processes('ddp_keep_worker.py', tmp_path / 'new', path)
    assert_kept(tmp_path / 'new/iter_4.pth')
