"""tools/analyze_sparsity.py on any network: zeros, masks, patterns, two files."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from mmsw.analysis.sparsity import compare_networks, network_table, read_any_network
from mmsw.apis import analyze_sparsity
from mmsw.checkpoint import CheckpointError
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import Density, attach_masks, masks, set_masks

ROOT = Path(__file__).resolve().parents[2]


def detector() -> nn.Module:
    """Names as those of mmdet's Mask R-CNN; no weight is zero by chance."""
    torch.manual_seed(0)
    layer1 = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 1))
    backbone = nn.ModuleDict(
        dict(conv1=nn.Conv2d(3, 6, 3), bn1=nn.BatchNorm2d(6), layer1=layer1, layer2=nn.Sequential(
            nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, (1, 3))))
    )  # fmt: skip
    heads = nn.ModuleDict(dict(bbox_head=nn.Linear(12, 5)))
    return nn.ModuleDict(dict(backbone=backbone, neck=nn.Conv2d(12, 12, 1), roi_head=heads))


def pruned_state() -> dict[str, Tensor]:
    """Filters, channels, 2:4 and single weights, each in a layer of its own."""
    state = detector().state_dict()
    state['backbone.layer1.0.weight'][[1, 5]] = 0
    groups = state['backbone.layer1.1.weight'].view(8, 2, 4)
    groups[::2, :, [0, 2]] = 0
    groups[1::2, :, [1, 3]] = 0
    state['backbone.layer2.1.weight'][:, 3] = 0
    state['roi_head.bbox_head.weight'][0, :7] = 0
    return state


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))


def tool(*arguments: object) -> int:
    """Runs the tool in this process; returns the exit code."""
    main = runpy.run_path(str(ROOT / 'tools/analyze_sparsity.py'))['main']
    return main([str(argument) for argument in arguments])


def test_every_layer_with_its_pattern_and_every_part() -> None:
    found = read_any_network(pruned_state(), 'net')
    assert {layer.name: layer.pattern.kind for layer in found.layers} == {
        'backbone.conv1': 'dense',
        'backbone.layer1.0': 'filter',
        'backbone.layer1.1': '2:4',
        'backbone.layer2.0': 'dense',
        'backbone.layer2.1': 'channel',
        'neck': 'dense',
        'roi_head.bbox_head': 'weight',
    }
    densities = {layer.name: layer.density for layer in found.layers}
    assert densities['backbone.layer1.0'] == Density(6, 8, 6 * 54, 8 * 54)
    assert densities['backbone.layer1.1'] == Density(8, 8, 32, 64)
    assert densities['backbone.layer2.1'] == Density(12, 12, 12 * 7 * 3, 12 * 8 * 3)
    assert densities['roi_head.bbox_head'] == Density(5, 5, 53, 60)
    data = found.to_dict()
    parts = {part['name']: part for part in data['parts']}
    assert list(parts) == [
        'backbone, rest', 'backbone.layer1', 'backbone.layer2', 'neck', 'roi_head.bbox_head',
    ]  # fmt: skip
    assert (parts['backbone.layer1']['layers'], parts['backbone.layer1']['sparse']) == (2, 2)
    assert parts['backbone.layer1']['density']['weights_kept'] == 6 * 54 + 32
    assert parts['backbone.layer2']['channels_pruned'] == 1
    assert found.total.density == sum(densities.values(), Density())


@pytest.mark.parametrize('wrap', ['bare', 'state_dict', 'model', 'module.', 'half'])
def test_files_of_every_kind_say_the_same(tmp_path: Path, wrap: str) -> None:
    state = pruned_state()
    expected = read_any_network(state, 'net').to_dict()
    content = {
        'bare': state,
        'state_dict': dict(meta={}, state_dict=state, optimizer={}),
        'model': dict(model=state, epoch=3),
        'module.': dict(state_dict={f'module.{k}': v for k, v in state.items()}),
        'half': {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
    }[wrap]
    torch.save(content, tmp_path / 'net.pth')
    found = analyze_sparsity(tmp_path / 'net.pth').to_dict()
    assert {**found, 'source': 'net'} == expected


def test_masks_that_agree_that_keep_zeros_and_that_are_broken() -> None:
    state = pruned_state()
    for name in ('backbone.layer1.0', 'backbone.layer1.1', 'backbone.layer2.1'):
        state[f'{name}.mask'] = state[f'{name}.weight'] != 0
    agree = read_any_network(state, 'net')
    assert [layer.name for layer in agree.layers if layer.has_mask] == [
        'backbone.layer1.0', 'backbone.layer1.1', 'backbone.layer2.1',
    ]  # fmt: skip
    text = network_table(agree)
    assert 'masks: of 3 of 7 layers, which agree with the zeros; 1 layers have zeros and no' in text

    state['backbone.layer1.0.mask'][1] = True  # the filter is zero
    state['backbone.layer2.1.weight'][0, 3, 0, 1] = 0.5  # the channel is pruned
    found = read_any_network(state, 'net')
    layers = {layer.name: layer for layer in found.layers}
    assert (layers['backbone.layer1.0'].kept_zeros, layers['backbone.layer1.0'].lost_zeros) == (
        54,
        0,
    )
    assert layers['backbone.layer1.0'].density == Density(6, 8, 6 * 54, 8 * 54)
    assert (layers['backbone.layer2.1'].kept_zeros, layers['backbone.layer2.1'].lost_zeros) == (
        0,
        1,
    )
    text = network_table(found)
    assert 'MASKS BROKEN: 1 weights' in text
    assert 'they keep 54 weights' in text
    rows = {line.split()[0]: line.split()[-2:] for line in text.splitlines() if line.strip()}
    assert rows['backbone.layer1.0'] == ['54', 'zeros']
    assert rows['backbone.layer2.1'] == ['by', '1']
    assert rows['roi_head.bbox_head'][-1] == 'none'


def test_numbers_and_filters_as_masks_and_something_else_of_that_name() -> None:
    state = pruned_state()
    kept = state['backbone.layer1.0.weight'].flatten(1).any(1)
    state['backbone.layer1.0.mask'] = kept.float().view(-1, 1, 1, 1)
    state['neck.mask'] = torch.full((3, 3), 0.5)
    found = read_any_network(state, 'net')
    (layer,) = [layer for layer in found.layers if layer.has_mask]
    assert (layer.name, layer.kept_zeros, layer.lost_zeros) == ('backbone.layer1.0', 0, 0)
    assert found.notes == ('neck.mask is no mask of the weight beside it, and is left out',)


def test_files_of_torch_prune_and_of_dynamic_training() -> None:
    model = detector()
    prune.l1_unstructured(model['neck'], 'weight', amount=0.5)
    prune.ln_structured(model['backbone']['layer1'][0], 'weight', amount=2, n=2, dim=0)
    found = {layer.name: layer for layer in read_any_network(model.state_dict(), 'net').layers}
    assert found['neck'].density.weights_kept == 72
    assert found['neck'].has_mask
    assert found['backbone.layer1.0'].pattern.kind == 'filter'

    state = pruned_state()
    state['backbone.layer1.0.mask'] = torch.ones(8, 6, 3, 3, dtype=torch.bool)
    state['backbone.layer1.0.mask'][1] = False
    grown = read_any_network(dict(state_dict=state, dynamic_sparsity={}), 'net')
    layer = next(layer for layer in grown.layers if layer.name == 'backbone.layer1.0')
    assert layer.density == Density(7, 8, 7 * 54, 8 * 54)
    assert layer.kept_zeros == 0


def test_zeros_of_weights_that_can_have_no_mask_are_named() -> None:
    attention = nn.MultiheadAttention(8, 2)
    state = attention.state_dict()
    state['in_proj_weight'][:6] = 0
    state['out_proj.weight'][:] = 0
    found = read_any_network(state, 'net')
    assert 'EMPTY: nothing is left of 1 layers: out_proj' in network_table(found)
    assert found.others == {'in_proj_weight': 0.25}
    assert 'in_proj_weight (25.0% zeros)' in network_table(found)


def test_parametrized_weights_and_files_without_layers_are_refused() -> None:
    with pytest.raises(CheckpointError, match='none of its 1 tensors is the weight'):
        read_any_network({'conv1.weight': torch.ones(3)}, 'net')
    layer = nn.Sequential(nn.Linear(4, 4))
    nn.utils.parametrize.register_parametrization(layer[0], 'weight', nn.Identity())
    with pytest.raises(CheckpointError, match='is parametrized'):
        read_any_network(layer.state_dict(), 'net')


def test_a_backbone_against_the_whole_model_it_was_trained_in() -> None:
    whole = pruned_state()
    before = {k.removeprefix('backbone.'): v.clone() for k, v in whole.items() if 'backbone' in k}
    before['fc.weight'] = torch.ones(2, 12)
    whole['backbone.layer1.0.weight'][1, 0] = 0.25  # nine of its zeros
    whole['backbone.conv1.weight'][2] = 0
    compared = compare_networks(read_any_network(before, 'a'), read_any_network(whole, 'b'))
    assert list(compared.layers) == [
        'backbone.conv1', 'backbone.layer1.0', 'backbone.layer1.1', 'backbone.layer2.0',
        'backbone.layer2.1',
    ]  # fmt: skip
    assert compared.only_first == ('fc',)
    assert compared.only_second == ('neck', 'roi_head.bbox_head')
    lost = {name: part.zeros_lost for name, part in compared.layers.items() if part.zeros_lost}
    assert lost == {'backbone.layer1.0': 9}
    assert compared.total.zeros == 2 * 54 + 32 + 36
    assert compared.total.zeros_gained == 27
    assert compared.layers['backbone.layer1.0'].only_second == 1
    assert compared.parts['backbone, rest'].second.kept == 5
    back = compare_networks(read_any_network(whole, 'b'), read_any_network(before, 'a'))
    assert (back.total.zeros_lost, back.total.zeros_gained) == (27, 9)
    with pytest.raises(ValueError, match='no layer in common'):
        compare_networks(read_any_network(before, 'a'), read_any_network(
            {'x.weight': torch.ones(2, 2)}, 'x'))  # fmt: skip


def test_tool_writes_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(dict(state_dict=pruned_state()), tmp_path / 'a.pth')
    out = tmp_path / 'out'
    assert tool(tmp_path / 'a.pth', '--out', out) == 0
    printed = capsys.readouterr().out
    assert printed.startswith((out / 'sparsity.txt').read_text())
    assert printed.splitlines()[0] == f'checkpoint {tmp_path / "a.pth"}'
    rows = [line.split() for line in printed.splitlines()]
    numbers = ['1', '1', '53/60', '88.3%', '5/5', '100.0%', '12/12', '100.0%']
    assert ['roi_head.bbox_head', *numbers, 'weight', '(1)'] in rows
    assert 'other layers, which are dense: 3' in printed
    data = json.loads((out / 'sparsity.json').read_text())
    assert data['format'] == 'mmsw.network_sparsity/1'
    assert data['total']['sparse'] == 4
    assert (out / 'sparsity.png').stat().st_size > 10_000

    assert tool(tmp_path / 'a.pth', '--compare', tmp_path / 'a.pth', '--out', out) == 0
    assert 'B keeps every zero of A (183 weights)' in capsys.readouterr().out
    data = json.loads((out / 'sparsity_comparison.json').read_text())
    assert data['format'] == 'mmsw.network_sparsity_comparison/1'
    assert (out / 'sparsity_comparison.png').stat().st_size > 10_000
    dense = {key: torch.ones_like(value) for key, value in pruned_state().items()}
    torch.save(dense, tmp_path / 'b.pth')
    assert tool(tmp_path / 'a.pth', '--compare', tmp_path / 'b.pth') == 0
    printed = capsys.readouterr().out
    assert 'ZEROS LOST: B keeps 183 of the 183 weights that A prunes (100.00%)' in printed
    assert 'B is DENSE' in printed
    assert tool(tmp_path / 'a.pth', '--first-layers') == 2
    assert 'without shift-wise layers' in capsys.readouterr().err


def test_heads_of_a_shift_wise_network_that_are_pruned(tmp_path: Path, capsys) -> None:
    net = ShiftWiseNet(dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]), big_kernels=(7, 7, 5, 5))
    model = nn.ModuleDict(dict(backbone=net, head=nn.Conv2d(8, 4, 1)))
    torch.save(model.state_dict(), tmp_path / 'dense.pth')
    assert tool(tmp_path / 'dense.pth') == 0
    assert 'Other layers' not in capsys.readouterr().out
    attach_masks(model, r'^head\.weight$')
    new = masks(model)
    new['head'][1] = False
    set_masks(model, new)
    torch.save(model.state_dict(), tmp_path / 'sparse.pth')
    assert tool(tmp_path / 'sparse.pth') == 0
    others = capsys.readouterr().out.split('Other layers\n')[1]
    assert '.shift_wise.' not in others
    assert ', which agree with the zeros\n' in others
    rows = {line.split()[0]: line.split() for line in others.splitlines() if line}
    assert rows['head'][-2:] == ['filter', 'agrees']
