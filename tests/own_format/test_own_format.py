"""Files in this project's own formats that an earlier version wrote still mean the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from own_format_helpers import BLOCKS, END, HOOKS, NAMES, SAVED_AT, own_config, own_file
from tiny_run import tiny_net
from write_own_files import outputs, packed_masks, write

from mmsw.apis import build_runner, init_model
from mmsw.checkpoint import FORMAT, load_checkpoint_file, load_pretrained, read_record, read_records
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import attach_masks, masked_layers, report, set_masks

Files = Callable[[str], Path]


@pytest.fixture(scope='module', params=range(1, FORMAT + 1), ids='v{}'.format)
def generation(request: pytest.FixtureRequest) -> int:
    """Of every format that there was."""
    return request.param


@pytest.fixture(scope='module')
def files(generation: int, data_dir: Path) -> Files:
    """The file of a name in the generation."""
    return lambda name: own_file(data_dir, name, generation)


@pytest.fixture(scope='module')
def expected(generation: int, data_dir: Path) -> dict[str, np.ndarray]:
    return dict(np.load(data_dir / f'own_v{generation}_expected.npz'))


def stored_masks(path: Path) -> dict[str, torch.Tensor]:
    """Masks of a file by layer name, read off its keys."""
    state = load_checkpoint_file(path)['state_dict']
    return {key[: -len('.mask')]: state[key] for key in state if key.endswith('.mask')}


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_converted_file_fills_a_backbone(files: Files, expected: dict) -> None:
    path = files('converted')
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    net = tiny_net(output_norm=False, init_cfg=init_cfg)
    net.init_weights()
    assert_close(outputs(net), expected['converted_output'])
    assert (report(net).total.kept, report(net).total.total) == (75, 108)
    stored = stored_masks(path)
    assert len(stored) == 8
    for name, layer in masked_layers(net):
        assert torch.equal(layer.mask, stored[name])
    meta = load_checkpoint_file(path)['meta']
    assert meta['source'] == 'published.pth'
    net = ShiftWiseNet(**meta.get('mmsw', meta)['backbone'], init_cfg=init_cfg)
    net.init_weights()
    assert report(net).total.kept == 75


def test_training_file_gives_a_model(files: Files, expected: dict) -> None:
    model = init_model(own_config('training'), files('training'))
    assert_close(outputs(model), expected['training_output'])
    assert np.array_equal(packed_masks(model), expected['training_masks'])
    assert report(model).total.kept == report(model).total.total // 2
    assert model.dataset_meta['classes'] == ('one', 'two', 'three')


def test_training_file_starts_another_training(files: Files) -> None:
    path = files('training')
    net = tiny_net(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    net.init_weights()
    stored = stored_masks(path)
    assert len(stored) == 8
    for name, layer in masked_layers(net):
        # Also the filters that were just grown, whose weights are still zero, are kept.
        assert torch.equal(layer.mask, stored[f'backbone.{name}'])
        assert torch.count_nonzero(layer.weight[~layer.mask]) == 0
        assert torch.count_nonzero(layer.weight[layer.mask]) > 0


@pytest.mark.parametrize('name', HOOKS)
def test_resumed_training_ends_as_the_one_that_went_on(
    files: Files, tmp_path: Path, expected: dict, plain_config_text: None, name: str
) -> None:
    runner = build_runner(own_config(name), tmp_path, resume=files(name))
    runner.train()
    assert runner.iter == END
    assert np.array_equal(packed_masks(runner.model), expected[f'{name}_end_masks'])
    assert_close(outputs(runner.model), expected[f'{name}_end_output'])
    saved = load_checkpoint_file(tmp_path / f'iter_{END}.pth')
    assert saved['dynamic_sparsity']['updates'] == END - 1


def test_state_of_the_hook_comes_back(files: Files, tmp_path: Path) -> None:
    path = files('training')
    saved = load_checkpoint_file(path)['dynamic_sparsity']
    assert saved['updates'] == SAVED_AT
    cfg = own_config('training')
    cfg.train_cfg.max_iters = SAVED_AT  # nothing is left to do
    runner = build_runner(cfg, tmp_path, resume=path)
    runner.train()
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'DynamicSparsityHook')
    state = {}
    hook.before_save_checkpoint(runner, state)
    found = state['dynamic_sparsity']
    assert found['updates'] == saved['updates']
    assert found['pending'] == saved['pending']
    assert torch.equal(found['generator'], saved['generator'])
    assert len(saved['momentum']) == 8
    for name, mean in saved['momentum'].items():
        assert torch.equal(found['momentum'][name], mean)


def test_scope_masks_are_zeros_of_the_model(files: Files, expected: dict) -> None:
    path = files('scope')
    model = init_model(own_config('scope'), path)
    assert_close(outputs(model), expected['scope_output'])
    stored = stored_masks(path)
    ordinary = {name: mask for name, mask in stored.items() if '.paths.' not in name}
    assert len(ordinary) == 5
    assert all(2 * mask.sum() == mask.numel() for mask in ordinary.values())
    for name, mask in ordinary.items():
        assert torch.count_nonzero(model.get_submodule(name).weight[~mask]) == 0
    attach_masks(model, '|'.join(f'^{name}.weight$' for name in ordinary))
    set_masks(model, stored)
    assert np.array_equal(packed_masks(model), expected['scope_masks'])


def test_folded_file_fills_a_folded_backbone(files: Files, expected: dict) -> None:
    model = init_model(own_config('training'), files('training'), deploy=True)
    state = load_checkpoint_file(files('folded'))['state_dict']
    assert sum('.deploy_' in key for key in state) == 3 * 4
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    model.load_state_dict(state)
    assert_close(outputs(model), expected['folded_output'])
    cfg = own_config('training')
    assert_close(outputs(init_model(cfg, files('folded'))), expected['folded_output'])
    cfg.model.backbone.deploy = True
    assert_close(outputs(init_model(cfg, files('folded'))), expected['folded_output'])


@pytest.mark.parametrize('name', BLOCKS)
@pytest.mark.parametrize('generation', range(2, FORMAT + 1), ids='v{}'.format, scope='module')
def test_folded_blocks_fill_a_folded_backbone(
    data_dir: Path, expected: dict, generation: int, name: str
) -> None:
    path = own_file(data_dir, name, generation)
    contents = load_checkpoint_file(path)
    record, state = read_record(contents, name), contents['state_dict']
    assert not any('shift_wise' in key for key in state)
    assert (record['format'], record['deploy']) == (generation, True)
    assert record['backbone']['version'] == BLOCKS[name]['version']
    net = ShiftWiseNet(**record['backbone'], deploy=True)
    net.load_state_dict(state, strict=True)
    np.testing.assert_allclose(outputs(net), expected[f'{name}_output'], rtol=1e-4, atol=1e-5)


def test_what_the_files_say_of_themselves(files: Files, generation: int) -> None:
    for name in NAMES:
        contents = load_checkpoint_file(files(name))
        record = read_record(contents, name)
        if generation == 1:
            assert record == {}
            continue
        assert record['format'] == generation
        assert record['deploy'] == (name == 'folded')
        assert read_records(contents).big_kernels == tiny_net().big_kernels
        stored = {key.removesuffix('.mask') for key in contents['state_dict'] if '.mask' in key}
        assert record['scope'] == [n for n in record['scope'] if n in stored and '.paths.' not in n]
        assert len(record['scope']) == (5 if name == 'scope' else 0)
        net = ShiftWiseNet(**record['backbone'], deploy=record['deploy'])
        state = {k.removeprefix('backbone.'): v for k, v in contents['state_dict'].items()}
        missing = net.load_state_dict(state, strict=False).missing_keys
        assert all(key.startswith('norm') for key in missing)
        assert bool(missing) == (name == 'converted')  # no classifier has output norms


def test_they_can_still_be_written(tmp_path: Path, plain_config_text: None) -> None:
    write(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    names = {own_file(tmp_path, name, FORMAT).name for name in (*NAMES, *BLOCKS)}
    assert written == {*names, f'own_v{FORMAT}_expected.npz'}


def test_a_network_that_was_pickled_whole(tmp_path: Path) -> None:
    """Before the sizes of the kernels stood beside the tables."""
    net = tiny_net()
    for module in net.modules():
        module._buffers.pop('kernel_sizes', None)
    torch.save(net, tmp_path / 'net.pth')
    again = torch.load(tmp_path / 'net.pth', weights_only=False)
    state = tiny_net().state_dict()
    assert again.load_state_dict(state).missing_keys == []
    torch.save(state, tmp_path / 'state.pth')
    load_pretrained(again, tmp_path / 'state.pth')
    assert again.state_dict().keys() == state.keys()
    assert again.stages[3][0].shift_wise.pattern.kernel_sizes.tolist() == [3, 3]
