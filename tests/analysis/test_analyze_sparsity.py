"""tools/analyze_sparsity.py and what it calls: files of every kind, with and without a config."""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmsw.analysis.sparsity.figures import SparsityAnalysis, analyze
from mmsw.analysis.sparsity.layers import Recorded, read_network
from mmsw.analysis.sparsity.table import sparsity_table
from mmsw.apis import UsageError, convert_checkpoint
from mmsw.apis.sparsity_analysis import analyze_sparsity, check_folder, write_report
from mmsw.checkpoint import CheckpointError, load_checkpoint_file, load_pretrained
from mmsw.models import ShiftWiseNet
from mmsw.ops import ShiftPattern
from mmsw.sparsity import masks, report, set_masks

ROOT = Path(__file__).resolve().parents[2]
MINI = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])
CONFIG = """default_scope = 'mmengine'
model = dict(backbone=dict(
    type='ShiftWiseNet', arch=dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40]), {more}))
"""


def tool(*arguments: object) -> int:
    """Runs the tool in this process; returns the exit code."""
    main = runpy.run_path(str(ROOT / 'tools/analyze_sparsity.py'))['main']
    return main([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))


@pytest.fixture
def published(data_dir: Path) -> Path:
    return data_dir / 'backbone_v2_mini_checkpoint.pth'


def figures(analysis: SparsityAnalysis) -> dict:
    """All that is counted, without what says where it comes from."""
    return {k: v for k, v in analysis.to_dict().items() if k not in ('source', 'notes')}


def test_stages_first_layers_and_total(tmp_path: Path) -> None:
    net = ShiftWiseNet(MINI)
    new = masks(net)
    for name, mask in new.items():
        drop = {'stages.0': 1, 'stages.1': 2, 'stages.2': 4, 'stages.3': 5}[name[:8]]
        mask[: drop * (2 if name.startswith('stages.2.1') else 1)] = False
    set_masks(net, new)
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    found = analyze_sparsity(tmp_path / 'net.pth')
    expected = report(net)
    assert [part.density for part in found.stages] == list(expected.stages.values())
    assert [part.density for part in found.layers] == list(expected.layers.values())
    assert found.total.density == expected.total
    lost = [(part.density.total - part.density.kept) // 2 for part in found.stages]
    assert lost == [1, 2, 12, 5]
    firsts = [found.layers_of(stage)[0].density for stage in range(4)]
    assert [(first.total - first.kept) // 2 for first in firsts] == [1, 2, 4, 5]
    data = found.to_dict()
    assert [layer['name'] for layer in data['layers']] == ['0.0', '1.0', '2.0', '2.1', '3.0']
    assert data['stages'][2]['first'] == {
        key: value for key, value in data['layers'][2].items() if key != 'name'
    }
    assert data['parameters_pruned'] == 2 * 20 * 9
    trained = [n for n, _ in net.named_parameters() if not n.startswith('norm')]
    assert data['parameters'] == sum(net.get_parameter(name).numel() for name in trained)
    text = sparsity_table(found)
    assert 'parameters pruned: 360 of' in text
    assert 'the paths of every layer have the same mask' in text


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_published_file_against_its_own_zeros(data_dir: Path, version: str) -> None:
    path = data_dir / f'backbone_{version}_mini_checkpoint.pth'
    small = {k: w for k, w in load_checkpoint_file(path)['model'].items() if '.LoRAs.' in k}
    found = analyze_sparsity(path)
    for stage, part in enumerate(found.stages):
        own = [w.flatten(1).any(1) for k, w in small.items() if k.startswith(f'stages.{stage}.')]
        assert part.density.kept == sum(int(kept.sum()) for kept in own)
        assert part.density.total == sum(map(len, own))
    pruned = sum(int((weight == 0).sum()) for weight in small.values())
    assert found.to_dict()['parameters_pruned'] == pruned > 0
    first, second = (small[f'stages.1.0.large_kernel.LoRAs.{p}.weight'] for p in (0, 1))
    assert found.layers[1].shared == int((first.flatten(1).any(1) & second.flatten(1).any(1)).sum())
    assert found.network.big_kernels == (51, 49, 47, 13)
    assert found.network.notes[0] == "big kernels as in the file's training arguments"
    assert found.network.notes[1].startswith('ASSUMED: R = 4')


def test_repetitions_and_kernels_of_the_training_arguments(published, tmp_path) -> None:
    raw = load_checkpoint_file(published)
    raw['args'] = argparse.Namespace(kernel_size=[49, 51, 47, 15, 3], N_rep=1)
    torch.save(raw, tmp_path / 'raw.pth')
    found = analyze_sparsity(tmp_path / 'raw.pth')
    assert (found.network.big_kernels, found.network.num_reps) == ((49, 51, 47, 15), 1)
    assert not any('ASSUMED' in note for note in found.network.notes)
    assert found.total.arms.block_density == pytest.approx(found.total.covered_density)
    raw['args'].kernel_size[0] = 31
    torch.save(raw, tmp_path / 'raw.pth')
    with pytest.raises(CheckpointError, match=r'say big kernels \(31, 51, 47, 15\), which do not'):
        analyze_sparsity(tmp_path / 'raw.pth')


def test_without_any_record_the_assumption_is_said(published, tmp_path) -> None:
    bare = load_checkpoint_file(published)['model']
    torch.save(bare, tmp_path / 'bare.pth')
    found = analyze_sparsity(tmp_path / 'bare.pth')
    assert figures(found) == figures(analyze_sparsity(published))
    assert [note[:26] for note in found.network.notes] == [
        'ASSUMED: the published big',
        'ASSUMED: R = 4 repetitions',
    ]
    net = ShiftWiseNet(MINI, big_kernels=(31, 14, 7, 5))
    state = {key: tensor for key, tensor in net.state_dict().items() if 'pattern' not in key}
    found = read_network(state, 'net')
    assert found.big_kernels == (33, 15, 9, 5)
    assert found.notes[0].startswith('ASSUMED: the longest odd big kernels')
    told = read_network(state, 'net', Recorded('the config', (31, 14, 7, 5), 2))
    assert (told.big_kernels, told.num_reps) == ((31, 14, 7, 5), 2)


def test_stored_patterns_count_not_drawn_ones() -> None:
    net = ShiftWiseNet(MINI, big_kernels=(31, 13, 7, 5), num_reps=2)
    state = net.state_dict()
    # another seed
    for name, pattern in [(n, m) for n, m in net.named_modules() if isinstance(m, ShiftPattern)]:
        sizes = (pattern.big_kernel, pattern.small_kernel, pattern.channels)
        state[f'{name}.shift_hv'] = ShiftPattern.draw(*sizes, num_reps=2, seed=7).shift_hv
    found = read_network(state, 'net')
    assert (found.big_kernels, found.num_reps) == ((31, 13, 7, 5), 2)
    for layer in found.layers:
        stored = state[f'stages.{layer.stage}.{layer.block}.shift_wise.pattern.shift_hv']
        assert torch.equal(layer.pattern.shift_hv, stored)
    even = ShiftWiseNet(MINI, big_kernels=(50, 14, 7, 5)).state_dict()
    assert read_network(even, 'net').big_kernels == (50, 14, 7, 5)
    # without its sizes, a pattern tells no more than M // 2 and the number of slots
    even = {key: tensor for key, tensor in even.items() if not key.endswith('kernel_sizes')}
    assert read_network(even, 'net').big_kernels == (51, 15, 7, 5)
    told = read_network(even, 'net', Recorded('the config', (50, 14, 7, 5)))
    assert told.big_kernels == (50, 14, 7, 5)


def test_config_and_tensors_agree(published, tmp_path) -> None:
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(more="norm_cfg=dict(type='SyncBN')"))
    with_config = analyze_sparsity(published, config, (100, 60))
    assert figures(with_config) == figures(analyze_sparsity(published, shape=(100, 60)))
    config.write_text(CONFIG.format(more='num_paths=1'))
    merged = analyze_sparsity(published, config)
    assert merged.network.shape.num_paths == 1
    assert merged.total.covered == analyze_sparsity(published).total.covered


def test_a_network_without_its_last_stage(published, tmp_path) -> None:
    whole = analyze_sparsity(published)
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(more='out_indices=(0, 1, 2)'))
    found = analyze_sparsity(published, config)
    assert [part.density for part in found.stages] == [part.density for part in whole.stages[:3]]
    net = ShiftWiseNet(MINI, out_indices=(0, 1, 2))
    load_pretrained(net, published)
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    for again in (
        analyze_sparsity(tmp_path / 'net.pth'),
        analyze_sparsity(tmp_path / 'net.pth', config),
    ):
        assert figures(again) == figures(found)
    assert 'stage 2' in sparsity_table(found)
    assert 'stage 3' not in sparsity_table(found)


def test_zeros_by_hand_count_as_pruned_like_in_a_network_that_is_loaded(tmp_path) -> None:
    net = ShiftWiseNet(MINI)
    state = net.state_dict()
    weight = 'stages.1.0.shift_wise.paths.1.weight'
    state[weight] = torch.where(torch.rand(state[weight].shape) < 0.5, state[weight], 0.0)
    torch.save(state, tmp_path / 'net.pth')
    load_pretrained(net, tmp_path / 'net.pth')
    assert analyze_sparsity(tmp_path / 'net.pth').total.density == report(net).total
    assert report(net).total.is_sparse


def test_converted_pretrained_and_trained_files_agree(published, tmp_path) -> None:
    expected = figures(analyze_sparsity(published))
    convert_checkpoint(published, tmp_path / 'own.pth')
    assert figures(analyze_sparsity(tmp_path / 'own.pth')) == expected
    converted = load_checkpoint_file(tmp_path / 'own.pth')['state_dict']
    torch.save(converted, tmp_path / 'pretrained.pth')
    assert 'head.weight' in converted
    assert figures(analyze_sparsity(tmp_path / 'pretrained.pth')) == expected
    net = ShiftWiseNet(MINI, init_cfg=dict(type='Pretrained', checkpoint=str(published)))
    net.init_weights()
    whole = {f'backbone.{key}': tensor for key, tensor in net.state_dict().items()}
    whole['decode_head.conv.weight'] = torch.ones(3, 3, 1, 1)
    averaged = {f'module.{key}': tensor for key, tensor in whole.items()}
    trained = dict(
        meta=dict(cfg='model = dict()', iter=1),
        state_dict=whole,
        ema_state_dict={**averaged, 'steps': torch.tensor(1)},
    )
    torch.save(trained, tmp_path / 'trained.pth')
    assert figures(analyze_sparsity(tmp_path / 'trained.pth')) == expected
    torch.save(dict(trained, state_dict=averaged), tmp_path / 'wrapped.pth')
    assert figures(analyze_sparsity(tmp_path / 'wrapped.pth')) == expected


def test_regrown_weights_that_are_still_zero_are_kept(tmp_path) -> None:
    net = ShiftWiseNet(MINI)
    state = net.state_dict()
    weight = 'stages.0.0.shift_wise.paths.0.weight'
    state[weight] = torch.zeros_like(state[weight])
    torch.save({'state_dict': state, 'dynamic_sparsity': {}}, tmp_path / 'net.pth')
    assert not analyze_sparsity(tmp_path / 'net.pth').total.density.is_sparse
    # Without the state of a dynamic run nothing can have just grown: loading prunes what is zero.
    torch.save({'state_dict': state}, tmp_path / 'net.pth')
    density = analyze_sparsity(tmp_path / 'net.pth').total.density
    assert density.weights_total - density.weights_kept == state[weight].numel()


def test_command_line(published, tmp_path, capsys) -> None:
    out, figures_file = tmp_path / 'out', tmp_path / 'figures.json'
    assert tool(published, '--out', out, '--json', figures_file, '--shape', 64, 96) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        'sparsity.json',
        'sparsity.png',
        'sparsity.svg',
        'sparsity.txt',
    ]
    text = (out / 'sparsity.txt').read_text()
    assert printed.startswith(text)
    rows = {line[:8].strip(): line.split() for line in text.splitlines()}
    assert text.splitlines()[0] == f'checkpoint {published}'
    assert 'in all   2,013/2,856  70.5%' in text
    assert rows['stage 2'][:2] == ['stage', '2']
    assert 'stage 2  1,074/1,536  69.9%      534/768  69.5%' in text
    assert 'for an image of 64 x 96; empty' in ' '.join(text.split())
    assert 'With R = 1 these masks would leave 91.88%' in ' '.join(text.split())
    assert max(map(len, text.splitlines()[1:])) <= 110
    data = json.loads(figures_file.read_text())
    assert data == json.loads((out / 'sparsity.json').read_text())
    assert data.pop('format') == 'mmsw.sparsity/1'
    assert data['total']['kept'] == 2013
    assert data['shape'] == [64, 96]
    cv2 = pytest.importorskip('cv2', reason='cv2: absent; reads the picture back')
    picture = cv2.imread(str(out / 'sparsity.png'))
    assert picture.shape[1] > 1000
    assert picture.std() > 20


def test_dense_single_path_and_single_weights(tmp_path, capsys) -> None:
    net = ShiftWiseNet(MINI, num_paths=1, num_reps=1, big_kernels=(7, 7, 5, 5))
    torch.save(net.state_dict(), tmp_path / 'dense.pth')
    assert tool(tmp_path / 'dense.pth', '--out', tmp_path / 'dense') == 0
    printed = capsys.readouterr().out
    assert 'DENSE: nothing is pruned' in printed
    assert 'falls away' not in printed
    assert 'in some path  ' not in printed.split('Distance')[0]
    assert (tmp_path / 'dense/sparsity.png').stat().st_size > 10_000
    new = masks(net)
    mask = new['stages.3.0.shift_wise.paths.0']
    mask[:, :, 0, 0] = False
    set_masks(net, new)
    torch.save(net.state_dict(), tmp_path / 'weights.pth')
    assert tool(tmp_path / 'weights.pth') == 0
    filters, weights = len(mask), mask.numel()
    printed = ' '.join(capsys.readouterr().out.split())
    counts = f'{filters}/{filters} 100.0% {weights - filters}/{weights} 88.9%'
    assert f'3.0 {counts}' in printed
    assert 'have the same mask' not in printed  # there is one path
    assert 'single weights pruned inside a kept filter save nothing' in printed


def test_paths_that_differ_in_single_weights_only() -> None:
    net = ShiftWiseNet(MINI)
    new = masks(net)
    new['stages.0.0.shift_wise.paths.1'][:, :, 0, 0] = False
    set_masks(net, new)
    text = sparsity_table(analyze(read_network(net.state_dict(), 'net')))
    assert 'keep the same filters; in them, 204 weights are kept by some paths only' in text


def test_nothing_left_can_be_drawn(tmp_path) -> None:
    net = ShiftWiseNet(MINI)
    set_masks(net, {name: torch.zeros_like(mask) for name, mask in masks(net).items()})
    found = analyze(read_network(net.state_dict(), 'net'))
    assert found.total.used == 0
    assert 'of the work 100.00% falls away' in sparsity_table(found)
    write_report(found, sparsity_table(found), tmp_path / 'out')
    assert (tmp_path / 'out/sparsity.png').is_file()


def test_errors_are_one_line(published, data_dir, tmp_path, capsys) -> None:
    def refused(*arguments: object) -> str:
        assert tool(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith('error: ')
        assert captured.err.count('\n') == 1
        assert 'checkpoint ' not in captured.out
        return captured.err

    assert 'absent.pth does not exist' in refused(tmp_path / 'absent.pth')
    assert 'is a folder' in refused(tmp_path)
    assert 'checkpoint torchvision://x cannot be fetched' in refused('torchvision://x')
    (tmp_path / 'damaged.pth').write_bytes(published.read_bytes()[:5000])
    assert 'it is truncated, or no PyTorch file' in refused(tmp_path / 'damaged.pth')
    torch.save({'state_dict': {'conv1.weight': torch.ones(1)}}, tmp_path / 'other.pth')
    assert 'another network' in refused(tmp_path / 'other.pth')
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    assert 'holds a list' in refused(tmp_path / 'list.pth')
    net = ShiftWiseNet(MINI)
    torch.save(net.switch_to_deploy().state_dict(), tmp_path / 'folded.pth')
    assert 'folded network' in refused(tmp_path / 'folded.pth')
    assert 'shape must be (H, W)' in refused(published, '--shape', 0, 512)
    (tmp_path / 'file').write_text('')
    assert 'must be a folder' in refused(published, '--out', tmp_path / 'file/deeper')
    assert 'is a folder' in refused(published, '--json', tmp_path)
    (tmp_path / 'out/sparsity.json').mkdir(parents=True)
    assert 'sparsity.json cannot be written' in refused(published, '--out', tmp_path / 'out')

    config = tmp_path / 'config.py'
    assert 'config.py does not exist' in refused(published, '--config', config)
    config.write_text(CONFIG.format(more="version='v1'"))
    assert 'is of another network: version v2 instead of v1' in refused(
        published, '--config', config
    )
    config.write_text(CONFIG.format(more='big_kernels=(51, 51, 47, 13)'))
    assert 'big_kernels (51, 49, 47, 13) instead' in refused(published, '--config', config)
    config.write_text(CONFIG.format(more="version='v3'"))
    assert 'cannot be built' in refused(published, '--config', config)
    config.write_text("default_scope = 'mmengine'\nmodel = dict(type='Other')\n")
    assert 'has no model.backbone' in refused(published, '--config', config)
    config.write_text("default_scope = 'mmengine'\nmodel = dict(backbone=dict(type='Conv2d', "
                      "in_channels=1, out_channels=1, kernel_size=1))\n")  # fmt: skip
    assert 'is a Conv2d, expected a ShiftWiseNet' in refused(published, '--config', config)


def test_damaged_contents() -> None:
    state = dict(ShiftWiseNet(MINI, big_kernels=(7, 7, 5, 5)).state_dict())
    prefix = 'stages.2.1.shift_wise.'

    def refused(**changes: Tensor | None) -> str:
        changed = {**state, **{prefix + key.replace('__', '.'): v for key, v in changes.items()}}
        changed = {key: value for key, value in changed.items() if value is not None}
        with pytest.raises(CheckpointError) as raised:
            read_network(changed, 'net.pth')
        return str(raised.value)

    weight = state[f'{prefix}paths.1.weight']
    assert 'net.pth is incomplete' in refused(paths__1__mask=None)
    assert 'paths.1.weight is' in refused(paths__1__weight=weight[1:])
    shifts = state[f'{prefix}pattern.shift_hv']
    assert 'stages.2.1.shift_wise is damaged: the shifts' in refused(pattern__shift_hv=shifts + 1)
    assert 'is incomplete' in refused(pattern__identity_index=None)


def test_needs_matplotlib_only_for_pictures(monkeypatch, published, tmp_path) -> None:
    monkeypatch.setattr('mmsw.apis.sparsity_analysis.find_spec', lambda name: None)
    assert tool(published) == 0
    with pytest.raises(UsageError, match='pip install matplotlib'):
        check_folder(tmp_path)


def test_help_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/analyze_sparsity.py', '--help'],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '--config' in done.stdout
