"""Two checkpoints against each other, counted by hand and through tools/analyze_sparsity.py."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmsw.analysis.sparsity import (
    analyze,
    compare,
    comparison_table,
    first_layer_table,
    read_network,
)
from mmsw.analysis.sparsity.comparison import Shared
from mmsw.analysis.sparsity.slak import read_slak
from mmsw.checkpoint import load_checkpoint_file
from mmsw.models import ShiftWiseNet, SLaK
from mmsw.ops import ShiftPattern
from mmsw.sparsity import masks, set_masks

ROOT = Path(__file__).resolve().parents[2]
MINI = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])
KERNELS = (13, 11, 9, 7)
FIRST = 'stages.0.0.shift_wise.paths.'


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))


def tool(*arguments: object) -> int:
    main = runpy.run_path(str(ROOT / 'tools/analyze_sparsity.py'))['main']
    return main([str(argument) for argument in arguments])


def state_with(change: Callable[[dict], None], **settings) -> dict:
    """State dict of a network whose masks ``change`` sets; no kept weight is zero."""
    net = ShiftWiseNet(MINI, **dict(big_kernels=KERNELS) | settings)
    with torch.no_grad():
        for path in (path for n, path in net.named_modules() if '.paths.' in n):
            path.weight.fill_(1.0)
    new = masks(net)
    change(new)
    set_masks(net, new)
    return net.state_dict()


def pruning(**slices: slice) -> Callable[[dict], None]:
    """Prune filters of the paths of the first layer, ``path0=slice(...)``."""

    def change(new: dict) -> None:
        for name, dropped in slices.items():
            new[FIRST + name.removeprefix('path')][dropped] = False

    return change


def compared(first: dict, second: dict):
    return compare(read_network(first, 'a.pth'), read_network(second, 'b.pth'))


def test_counted_by_hand() -> None:
    before = state_with(pruning(path0=slice(0, 10), path1=slice(0, 4)))
    after = state_with(pruning(path0=slice(7, 12), path1=slice(0, 5)))
    found = compared(before, after)
    layer = found.layers[0]
    filters = layer.first.total
    # path 0: A prunes 0..9, B 7..11; path 1: A prunes 0..3, B 0..4
    assert (layer.only_first, layer.only_second) == (2 + 1, 7)
    assert layer.neither == 3 + 4
    assert layer.both == filters - 3 - 7 - 7
    assert (layer.zeros, layer.zeros_lost, layer.zeros_gained) == (14 * 9, 7 * 9, 3 * 9)
    assert (layer.first.kept, layer.second.kept) == (filters - 14, filters - 10)
    assert layer.overlap == layer.both / (layer.both + 10)
    assert found.stages[0] == layer
    assert all(part.zeros == part.zeros_lost == part.only_first == 0 for part in found.layers[1:])
    assert found.total == sum(found.layers, Shared())
    assert not found.moved
    assert not found.has_single_weights
    text = comparison_table(found)
    assert 'ZEROS LOST: B keeps 63 of the 126 weights that A prunes (50.0%), in 1 of 5' in text
    assert 'exchange' not in text


def test_the_other_way_round_swaps_everything() -> None:
    before = state_with(pruning(path0=slice(0, 10)))
    after = state_with(pruning(path0=slice(6, 11)))
    one, other = compared(before, after).total, compared(after, before).total
    assert (one.first, one.only_first, one.zeros_lost) == (
        other.second, other.only_second, other.zeros_gained,
    )  # fmt: skip
    assert (one.both, one.neither, one.overlap) == (other.both, other.neither, other.overlap)


def test_single_weights() -> None:
    def one_weight(new: dict) -> None:
        new[f'{FIRST}0'][:, :, 0, 0] = False

    before = state_with(one_weight)
    found = compared(before, state_with(pruning()))
    filters = len(before[f'{FIRST}0.mask'])
    layer = found.layers[0]
    assert (layer.only_first, layer.only_second, layer.neither) == (0, 0, 0)
    assert (layer.zeros, layer.zeros_lost) == (filters, filters)
    assert found.has_single_weights
    text = comparison_table(found)
    assert 'A weights' in text
    assert 'B is DENSE' in text


def test_what_is_said_of_zeros() -> None:
    dense, sparse = state_with(pruning()), state_with(pruning(path0=slice(0, 9)))
    more = state_with(pruning(path0=slice(0, 12)))
    swapped = state_with(pruning(path0=slice(5, 14)))
    kept = comparison_table(compared(sparse, more))
    assert 'B keeps every zero of A (81 weights)' in kept
    assert 'LOST' not in kept
    assert 'A prunes nothing' in comparison_table(compared(dense, sparse))
    exchanged = comparison_table(compared(sparse, swapped))
    assert 'ZEROS LOST' in exchanged
    assert 'that is what an exchange of dynamic sparse training does' in ' '.join(exchanged.split())


def test_patterns_that_differ_are_said() -> None:
    state = state_with(pruning())
    moved = dict(state)
    prefix = 'stages.2.1.shift_wise.pattern.'
    channels = state[f'{prefix}identity_index'].shape[0]
    moved[f'{prefix}shift_hv'] = ShiftPattern.draw(9, 3, channels, 4, seed=7).shift_hv
    found = compared(state, moved)
    assert found.moved == ('2.1',)
    assert 'PATTERNS DIFFER in 1 layers (2.1)' in comparison_table(found)


@pytest.mark.parametrize(
    ('settings', 'difference'),
    [
        (dict(num_paths=1), 'num_paths is 2 in the first and 1 in the second'),
        (dict(version='v1', small_kernel=3), 'version is v2'),
        (dict(big_kernels=(31, 11, 9, 7)), 'num_filters is'),
    ],
)
def test_other_networks_cannot_be_compared(settings: dict, difference: str) -> None:
    with pytest.raises(ValueError, match=difference):
        compared(state_with(pruning()), state_with(pruning(), **settings))


def test_fine_tuning_that_undid_the_pruning_of_a_published_file(data_dir, tmp_path, capsys) -> None:
    published = data_dir / 'backbone_v2_mini_checkpoint.pth'
    raw = load_checkpoint_file(published)
    zeros = 0
    for key, weight in raw['model'].items():
        if '.LoRAs.' in key:
            zeros += int((weight == 0).sum())
            weight += 1e-6
    torch.save(raw, tmp_path / 'tuned.pth')
    out = tmp_path / 'out'
    assert tool(published, '--compare', tmp_path / 'tuned.pth', '--out', out) == 0
    printed = ' '.join(capsys.readouterr().out.split())
    assert (
        f'ZEROS LOST: B keeps {zeros:,} of the {zeros:,} weights that A prunes (100.0%)' in printed
    )
    assert 'B is DENSE' in printed
    data = json.loads((out / 'sparsity_comparison.json').read_text())
    assert data.pop('format') == 'mmsw.sparsity_comparison/1'
    assert data['total']['zeros_lost'] == data['total']['zeros'] == zeros
    assert [part['name'] for part in data['layers']] == ['0.0', '1.0', '2.0', '2.1', '3.0']
    assert (out / 'sparsity_comparison.txt').read_text().startswith('A: ')
    assert '<svg' in (out / 'sparsity_comparison.svg').read_text()
    assert (out / 'sparsity_comparison.png').stat().st_size > 10_000
    assert tool(published, '--compare', published, '--json', tmp_path / 'same.json') == 0
    assert 'B keeps every zero of A' in capsys.readouterr().out
    same = json.loads((tmp_path / 'same.json').read_text())['total']
    assert (same['zeros_lost'], same['zeros_gained'], same['overlap']) == (0, 0, 1.0)


def test_zeros_of_ordinary_layers_count_too(tmp_path, capsys) -> None:
    state = state_with(pruning())
    name = next(key for key in state if key.endswith('pointwise_conv1.weight'))
    lost = dict(state)
    state[name] = state[name].clone()
    state[name][::2] = 0.0
    files = tmp_path / 'a.pth', tmp_path / 'b.pth'
    for tensors, file in zip((state, lost), files, strict=True):
        torch.save({'state_dict': tensors}, file)
    assert tool(files[0], '--compare', files[1]) == 0
    printed = capsys.readouterr().out
    number = f'{state[name][::2].numel():,}'
    assert printed.startswith('Other layers\n')
    assert f'ZEROS LOST: B keeps {number} of the {number} weights' in printed
    assert tool(files[0], '--compare', files[0]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith('A: ')
    assert f'B keeps every zero of A ({number} weights)' in printed.partition('Other layers\n')[2]
    assert tool(files[1], '--compare', files[1]) == 0
    assert 'Other layers' not in capsys.readouterr().out


def test_errors_are_one_line(data_dir, tmp_path, capsys) -> None:
    published = data_dir / 'backbone_v2_mini_checkpoint.pth'
    for other, message in (
        (tmp_path / 'absent.pth', 'absent.pth does not exist'),
        (data_dir / 'backbone_v1_mini_checkpoint.pth', 'are of different networks: version is'),
    ):
        assert tool(published, '--compare', other) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.startswith('error: ')
        assert captured.err.count('\n') == 1
        assert not captured.out
    with pytest.raises(SystemExit, match='2'):
        tool(published, '--compare', published, '--first-layers')
    assert 'not allowed with' in capsys.readouterr().err


def test_first_layers(tmp_path, capsys) -> None:
    state = state_with(pruning(path0=slice(0, 10), path1=slice(0, 4)))
    text = first_layer_table(analyze(read_network(state, 'net')))
    layer = [row.split() for row in text.splitlines()[2:6]]
    total = 2 * len(state[f'{FIRST}0.mask'])
    active = total // 10  # of two paths, five filters per channel
    assert layer[0] == [
        'stage', '0', '13', f'{total - 14}/{total}', f'{1 - 14 / total:.1%}', f'{14 / total:.1%}',
        f'{(total - 14) / (2 * active):.1f}', '5',
    ]  # fmt: skip
    assert [row[5] for row in layer[1:]] == ['0.0%'] * 3
    torch.save(state, tmp_path / 'net.pth')
    assert tool(tmp_path / 'net.pth', '--first-layers') == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1:] == text.splitlines()[1:]
    assert 'Distance' not in printed


def slak_state(dropped: Callable[[torch.Tensor], None] | None = None, **settings) -> dict:
    """State dict of a SLaK, all ones, whose first vertical kernel has masks as ``dropped`` sets."""
    net = SLaK(MINI, width_factor=1.0, big_kernels=KERNELS, small_kernel=3, **settings)
    state = net.state_dict()
    for name in [name for name in state if 'large_kernel' in name and 'conv.weight' in name]:
        state[name] = torch.ones_like(state[name])
        state[name.replace('weight', 'mask')] = torch.ones_like(state[name]).bool()
    if dropped is not None:
        dropped(state['stages.0.0.large_kernel.vertical.conv.mask'])
    return state


def test_blocks_of_slak_are_counted_as_filters() -> None:
    def first(mask: torch.Tensor) -> None:
        mask[:4, :, :3] = False  # the first block of four channels

    def second(mask: torch.Tensor) -> None:
        mask[3:5, :, :3] = False
        mask[9, :, 3, 0] = False  # one weight of a block

    one, other = (read_slak(slak_state(drop), 'net.pth') for drop in (first, second))
    found = compare(one, other)
    layer = found.layers[0]
    filters = 16 * (5 + 5 + 1)  # 13 rows or columns are five blocks of 3
    weights = 16 * (2 * 13 * 3 + 9)
    assert (layer.first.kept, layer.first.total) == (filters - 4, filters)
    assert (layer.first.weights_kept, layer.first.weights_total) == (weights - 36, weights)
    assert (layer.only_first, layer.only_second, layer.neither) == (1, 3, 1)
    assert (layer.zeros, layer.zeros_lost, layer.zeros_gained) == (36, 27, 10)
    assert all(part.zeros == 0 for part in found.layers[1:])
    assert found.moved == ()
    text = comparison_table(found)
    assert 'large kernels M x N and N x M' in text
    assert 'cut into blocks of N x N' in text
    assert 'ZEROS LOST: B keeps 27 of the 36' in text


def test_first_layers_of_slak() -> None:
    def drop(mask: torch.Tensor) -> None:
        mask[:4, :, :3] = False
        mask[:, :, 3, 0] = False

    text = first_layer_table(analyze(read_slak(slak_state(drop), 'net')))
    weights = 16 * (2 * 13 * 3 + 9)
    kept = weights - 4 * 9 - 16
    assert text.splitlines()[2].split() == [
        'stage', '0', '13', '172/176', '97.7%', '2.3%', '10.8', '11',
        f'{kept:,}/{weights:,}', f'{kept / weights:.1%}',
    ]  # fmt: skip
    assert 'blocks of N x N' in text
    assert 'nk' not in text


def test_slak_and_other_networks_cannot_be_compared(data_dir, tmp_path, capsys) -> None:
    square = read_slak(slak_state(decomposed=False), 'b.pth')
    with pytest.raises(ValueError, match='decomposed is True in the first and False in the second'):
        compare(read_slak(slak_state(), 'a.pth'), square)
    published = data_dir / 'backbone_slak_mini_checkpoint.pth'
    assert tool(published, '--compare', data_dir / 'backbone_v1_mini_checkpoint.pth') == 2
    assert 'family is SLaK in the first and shift-wise network in' in capsys.readouterr().err
    assert tool(published, '--first-layers') == 0
    capsys.readouterr()
    assert tool(published, '--compare', published, '--out', tmp_path) == 0
    assert 'B keeps every zero of A' in capsys.readouterr().out
    assert '<svg' in (tmp_path / 'sparsity_comparison.svg').read_text()
