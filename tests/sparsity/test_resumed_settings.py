"""Going on with other settings than a training began with: refused by name, or a warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import POINTWISE, ToyModel, build_runner, train_with_log
from toy import dynamic_hook as hook

from mmsw import sparsity
from mmsw.checkpoint import load_checkpoint_file
from mmsw.errors import SparsityError


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def small_file(folder) -> Path:
    """Half of the filters of the small kernels pruned, two iterations done."""
    build_runner(folder / 'small', None, max_iters=2, hooks=[hook()]).train()
    return folder / 'small/iter_2.pth'


@pytest.fixture(scope='module')
def scope_file(folder) -> Path:
    """The same of ordinary layers, the weights of which are pruned one by one."""
    settings = hook(scope=POINTWISE, granularity='weight')
    build_runner(folder / 'scope', None, max_iters=2, hooks=[settings]).train()
    return folder / 'scope/iter_2.pth'


def resume(work_dir: Path, path: Path, caplog=None, max_iters: int = 4, **settings):
    runner = build_runner(
        work_dir,
        None,
        max_iters=max_iters,
        hooks=[hook(**settings)],
        resume=True,
        load_from=str(path),
    )
    if caplog is None:
        runner.train()
    else:
        train_with_log(runner, caplog)
    return runner


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(sparsity=0.9), 'sparsity is 0.9, in the checkpoint it is 0.5'),
        (dict(granularity='weight'), "granularity is 'weight', in the checkpoint it is 'filter'"),
        (dict(scope=POINTWISE), r"scope is '.*', in the checkpoint it is None"),
        (dict(sparsity=0.9, granularity='weight'), 'sparsity is 0.9.*; granularity is'),
    ],
)
def test_what_cannot_change_is_refused_by_name(tmp_path, small_file, settings, message) -> None:
    with pytest.raises(SparsityError, match=message):
        resume(tmp_path, small_file, **settings)
    assert not list(tmp_path.glob('*.pth'))


def test_another_choice_of_layers_is_refused(tmp_path, scope_file) -> None:
    narrower = dict(granularity='weight', scope=POINTWISE.replace(r'\d+', '2', 1))
    with pytest.raises(SparsityError, match=r'scope is .*stages\\\\.2.*, in the checkpoint it is'):
        resume(tmp_path, scope_file, **narrower)
    checkpoint = load_checkpoint_file(scope_file)
    checkpoint['dynamic_sparsity']['settings']['scope'] = narrower['scope']
    torch.save(checkpoint, tmp_path / 'file.pth')
    with pytest.raises(SparsityError, match=r'of 5 layers, this one has 2; .*stages\.0'):
        resume(tmp_path, tmp_path / 'file.pth', **narrower)


def test_masks_that_somebody_changed_are_refused(tmp_path, small_file) -> None:
    checkpoint = load_checkpoint_file(small_file)
    key = next(key for key in checkpoint['state_dict'] if key.endswith('.mask'))
    checkpoint['state_dict'][key][:] = True
    torch.save(checkpoint, tmp_path / 'file.pth')
    with pytest.raises(SparsityError, match=r'not those .*paths\.0 keeps \d+ filters instead of'):
        resume(tmp_path, tmp_path / 'file.pth')


def test_other_rates_are_a_warning(tmp_path, small_file, caplog) -> None:
    resume(tmp_path, small_file, caplog, interval=1, prune_rate=0.2, grow='momentum', seed=5)
    lines = [r.message for r in caplog.records if 'other settings now' in r.message]
    assert lines == [
        'Dynamic sparsity: other settings now: prune_rate is 0.2, in the checkpoint it is 0.3; '
        "grow is 'momentum', in the checkpoint it is 'random'; "
        'interval is 1, in the checkpoint it is 2.'
    ]


def test_the_sparsity_of_the_checkpoint_is_no_other_one(tmp_path, small_file, caplog) -> None:
    """``start`` counts at the start only; a resumed run has its masks."""
    runner = resume(tmp_path, small_file, caplog, start='from_checkpoint', sparsity=None)
    assert sparsity.report(runner.model).total.density == 0.5


def test_the_same_settings_say_nothing(tmp_path, small_file, caplog) -> None:
    resume(tmp_path, small_file, caplog)
    assert 'goes on after 0 updates, 1428/2856 filters kept' in caplog.text
    assert 'other settings' not in caplog.text
    assert 'earlier version' not in caplog.text


def test_numbers_of_numpy_and_torch_become_plain_ones(tmp_path, caplog) -> None:
    settings = dict(
        sparsity=np.float32(0.5),
        prune_rate=torch.tensor(0.25),
        align_interval=np.int64(3),
        seed=np.uint8(1),
        interval=np.int32(2),
        momentum=np.float16(0.5),
    )
    build_runner(tmp_path, None, max_iters=2, hooks=[hook(**settings)]).train()
    path = tmp_path / 'iter_2.pth'
    recorded = load_checkpoint_file(path)['dynamic_sparsity']['settings']
    plain = dict(sparsity=0.5, prune_rate=0.25, align_interval=3, seed=1, interval=2, momentum=0.5)
    assert {name: recorded[name] for name in plain} == plain
    assert all(type(recorded[name]) is type(value) for name, value in plain.items())
    resume(tmp_path / 'same', path, caplog, **settings)
    assert 'goes on after 0 updates' in caplog.text
    assert 'other settings' not in caplog.text


def test_states_of_before_they_had_a_version_still_resume(tmp_path, small_file, caplog) -> None:
    checkpoint = load_checkpoint_file(small_file)
    for key in ('version', 'settings', 'kept'):
        del checkpoint['dynamic_sparsity'][key]
    assert set(checkpoint['dynamic_sparsity']) == {'updates', 'generator', 'pending', 'momentum'}
    torch.save(checkpoint, tmp_path / 'old.pth')
    runner = resume(tmp_path, tmp_path / 'old.pth', caplog)
    assert 'written by an earlier version of mmsw' in caplog.text
    same = resume(tmp_path / 'same', small_file)
    for key, value in same.model.state_dict().items():
        assert torch.equal(runner.model.state_dict()[key], value)


def as_version_1(path: Path, folder: Path) -> tuple[Path, dict]:
    """The file as the last ones of version 1 were, and its state, to be changed and saved."""
    checkpoint = load_checkpoint_file(path)
    state = checkpoint['dynamic_sparsity']
    state['version'], state['layers'] = 1, state.pop('kept')
    state['settings']['prune'] = 'magnitude'
    torch.save(checkpoint, folder / 'version_1.pth')
    return folder / 'version_1.pth', checkpoint


def test_states_of_version_1_still_resume(tmp_path, small_file, caplog) -> None:
    old, _ = as_version_1(small_file, tmp_path)
    runner = resume(tmp_path, old, caplog)
    assert 'earlier version' not in caplog.text
    assert 'other settings' not in caplog.text
    same = resume(tmp_path / 'same', small_file)
    for key, value in same.model.state_dict().items():
        assert torch.equal(runner.model.state_dict()[key], value)


def test_counts_of_version_1_are_compared_too(tmp_path, small_file) -> None:
    path, checkpoint = as_version_1(small_file, tmp_path)
    name = next(iter(checkpoint['dynamic_sparsity']['layers']))
    checkpoint['dynamic_sparsity']['layers'][name] += 1
    torch.save(checkpoint, path)
    with pytest.raises(SparsityError, match=rf'not those .*: {name} keeps \d+ filters instead of'):
        resume(tmp_path, path)


def test_what_a_file_of_now_holds(small_file) -> None:
    state = load_checkpoint_file(small_file)['dynamic_sparsity']
    assert list(state) == [
        *('version', 'settings', 'kept', 'updates', 'generator', 'pending', 'momentum')
    ]
    assert state['version'] == 2
    assert state['settings']['prune'] == 'magnitude'
    assert state['settings']['redistribution'] is None
    masks = load_checkpoint_file(small_file)['state_dict']
    for name, number in state['kept'].items():
        assert number == int(masks[f'{name}.mask'].flatten(1).any(1).sum())
    assert sum(state['kept'].values()) == 1428


def test_counts_that_do_not_fit_the_masks_are_refused(tmp_path, small_file) -> None:
    checkpoint = load_checkpoint_file(small_file)
    kept = checkpoint['dynamic_sparsity']['kept']
    for name in reversed(kept):
        kept[name] -= 1
    torch.save(checkpoint, tmp_path / 'file.pth')
    with pytest.raises(SparsityError, match=rf'{name} keeps \d+ filters.* and 6 more'):
        resume(tmp_path, tmp_path / 'file.pth')
    assert not list(tmp_path.glob('iter_*.pth'))


def without_new_rules(path: Path, folder: Path) -> Path:
    """The file as one of version 2 was before there was a choice of ``prune``."""
    checkpoint = load_checkpoint_file(path)
    for name in ('prune', 'redistribution'):
        del checkpoint['dynamic_sparsity']['settings'][name]
    torch.save(checkpoint, folder / 'before.pth')
    return folder / 'before.pth'


def test_files_of_before_there_were_other_rules_resume(tmp_path, small_file, caplog) -> None:
    runner = resume(tmp_path, without_new_rules(small_file, tmp_path), caplog)
    assert 'other settings' not in caplog.text
    same = resume(tmp_path / 'same', small_file)
    for key, value in same.model.state_dict().items():
        assert torch.equal(runner.model.state_dict()[key], value)


def test_other_rules_are_a_warning(tmp_path, small_file, caplog) -> None:
    """Also where the file is of before there were any others."""
    old = without_new_rules(small_file, tmp_path)
    runner = resume(tmp_path, old, caplog, prune='set', redistribution='momentum')
    lines = [r.message for r in caplog.records if 'other settings now' in r.message]
    assert lines == [
        "Dynamic sparsity: other settings now: prune is 'set', in the checkpoint it is "
        "'magnitude'; redistribution is 'momentum', in the checkpoint it is None."
    ]
    assert sparsity.report(runner.model).total.density == 0.5


def test_states_of_a_later_form_are_refused(tmp_path, small_file) -> None:
    checkpoint = load_checkpoint_file(small_file)
    checkpoint['dynamic_sparsity']['version'] = 7
    torch.save(checkpoint, tmp_path / 'new.pth')
    with pytest.raises(SparsityError, match='of form 7, and this version of mmsw knows forms up'):
        resume(tmp_path, tmp_path / 'new.pth')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('version', 'x'),
        ('settings', None),
        ('settings', {'sparsity': torch.zeros(2)}),
        ('kept', 3),
        ('kept', {'backbone': 'x'}),
        ('updates', 'x'),
        ('updates', -1),
        ('updates', None),
        ('generator', 'x'),
        ('generator', torch.zeros(3)),
        ('generator', torch.zeros(3, dtype=torch.uint8)),
        ('pending', 'x'),
        ('momentum', 3),
        ('momentum', {'backbone.stages.0.0.shift_wise.paths.0': torch.zeros(2)}),
        (None, [1]),
    ],
)
def test_damaged_states_are_refused(tmp_path, small_file, key, value) -> None:
    checkpoint = load_checkpoint_file(small_file)
    if key is None:
        checkpoint['dynamic_sparsity'] = value
    else:
        checkpoint['dynamic_sparsity'][key] = value
    torch.save(checkpoint, tmp_path / 'damaged.pth')
    with pytest.raises(SparsityError, match=r'state of sparse training.* is damaged \(.*load_from'):
        resume(tmp_path, tmp_path / 'damaged.pth', grow='momentum')


@pytest.mark.parametrize('key', ['settings', 'kept', 'updates', 'generator', 'pending', 'momentum'])
def test_states_that_lack_a_part_are_damaged(tmp_path, small_file, key) -> None:
    checkpoint = load_checkpoint_file(small_file)
    del checkpoint['dynamic_sparsity'][key]
    torch.save(checkpoint, tmp_path / 'damaged.pth')
    with pytest.raises(SparsityError, match=rf'is damaged \({key} is missing, expected'):
        resume(tmp_path, tmp_path / 'damaged.pth')


def test_a_damaged_state_changes_nothing() -> None:
    settings = sparsity.DynamicSettings(start='erk', sparsity=0.5)
    dynamic = sparsity.DynamicSparsity(ToyModel(), settings)
    before = dynamic.state_dict()
    other = {**before, 'updates': 7, 'generator': torch.zeros(3, dtype=torch.uint8)}
    with pytest.raises(SparsityError, match='is damaged'):
        dynamic.load_state_dict(other)
    assert dynamic.updates == 0
    assert torch.equal(dynamic.generator.get_state(), before['generator'])
