"""Files of SLaK: loading, masks of single weights, what is refused, conversion and analysis."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from mmsw import sparsity
from mmsw.apis.convert import convert_checkpoint
from mmsw.apis.sparsity_analysis import analyze_sparsity
from mmsw.checkpoint import (
    CheckpointError,
    load_checkpoint_file,
    load_pretrained,
    load_release_checkpoint,
    save_checkpoint_file,
)
from mmsw.models import ShiftWiseNet, SLaK

MINI = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])
BRANCHES = 3 * 5  # of all blocks


@pytest.fixture(scope='module')
def published(data_dir) -> Path:
    return data_dir / 'backbone_slak_mini_checkpoint.pth'


def slak(**settings) -> SLaK:
    return SLaK(**dict(arch=MINI, width_factor=1.0) | settings)


def zeros(state: dict) -> dict[str, int]:
    """Exact zeros by name, of weights of several dimensions."""
    weights = {k: v for k, v in state.items() if k.endswith('weight') and v.ndim > 1}
    return {key: int((weight == 0).sum()) for key, weight in weights.items() if 'head' not in key}


@pytest.mark.parametrize('shift_wise', [False, True])
def test_every_zero_of_a_published_file_stays(published, shift_wise) -> None:
    net = slak(shift_wise=shift_wise)
    load_pretrained(net, published)
    state = net.state_dict()
    expected = zeros(load_release_checkpoint(published))
    assert zeros(state) == expected
    masked = dict(sparsity.masked_layers(net))
    assert len(masked) == BRANCHES == sum(number > 0 for number in expected.values())
    before = {name: layer.mask.clone() for name, layer in masked.items()}
    other = copy.deepcopy(net)
    for each in (net, other):
        optimizer = torch.optim.AdamW(each.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(2):
            each.train()(torch.randn(2, 3, 32, 32))[-1].sum().backward()
            optimizer.step()
        assert zeros(each.state_dict()) == expected
        for name, layer in sparsity.masked_layers(each):
            assert torch.equal(layer.mask, before[name])
            assert torch.equal(layer.weight != 0, before[name])


def test_report_counts_single_weights(published) -> None:
    net = slak()
    load_pretrained(net, published)
    total = sparsity.report(net).total
    assert total.weights_total - total.weights_kept == sum(zeros(net.state_dict()).values())
    assert total.is_sparse
    assert total.density == 1.0


def test_zeros_of_any_layer_count(published, tmp_path) -> None:
    checkpoint = load_checkpoint_file(published)
    checkpoint['model']['stages.1.0.pwconv1.weight'][3, :5] = 0
    path = tmp_path / 'file.pth'
    save_checkpoint_file(checkpoint, path)
    net = slak()
    load_pretrained(net, path)
    mask = net.stages[1][0].pointwise_conv1.mask
    assert int((~mask).sum()) == 5
    assert not mask[3, :5].any()


def test_dense_file_brings_no_masks(tmp_path) -> None:
    path = tmp_path / 'dense.pth'
    save_checkpoint_file({'state_dict': slak().state_dict()}, path)
    net = slak(shift_wise=True)
    load_pretrained(net, path)
    assert list(sparsity.masked_layers(net)) == []


@pytest.mark.parametrize(
    ('net', 'file', 'message'),
    [
        (lambda: ShiftWiseNet(MINI, 'v1'), 'slak', r"holds a SLaK network.*type='SLaK'"),
        (slak, 'v1', r"holds a shift-wise network.*type='ShiftWiseNet'"),
        (slak, 'v2', 'holds a shift-wise network'),
        (lambda: slak(width_factor=1.3), 'slak', r'dims \(16, 24, 32, 40\) instead of'),
        (lambda: slak(decomposed=False), 'slak', 'decomposed True instead of False'),
        (lambda: slak(big_kernels=(51, 49, 45, 13)), 'slak', r'big_kernels \(51, 49, 47, 13\)'),
        (lambda: slak(small_kernel=3), 'slak', 'small_kernel 5 instead of 3'),
        (lambda: slak(deploy=True), 'slak', 'load first'),
    ],
)
def test_files_of_other_networks_are_refused(data_dir, net, file, message) -> None:
    net = net()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(net, data_dir / f'backbone_{file}_mini_checkpoint.pth')
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_merged_files_are_refused_by_name(published, tmp_path) -> None:
    model = load_checkpoint_file(published)['model']
    state = {key: t for key, t in model.items() if 'large_kernel' not in key}
    state['stages.0.0.large_kernel.lkb_reparam.weight'] = torch.zeros(16, 1, 51, 51)
    path = tmp_path / 'merged.pth'
    save_checkpoint_file(state, path)
    with pytest.raises(CheckpointError, match='SLaK network whose branches are merged'):
        load_pretrained(slak(), path)


def test_both_networks_in_one_file(data_dir, tmp_path) -> None:
    """Each finds its own: a teacher of the other kind is no choice."""
    parts = {
        'teacher': data_dir / 'backbone_slak_mini_checkpoint.pth',
        'backbone': data_dir / 'backbone_v1_mini_checkpoint.pth',
    }
    state = {
        f'{prefix}.{key}': tensor
        for prefix, path in parts.items()
        for key, tensor in load_checkpoint_file(path)['model'].items()
    }
    path = tmp_path / 'both.pth'
    save_checkpoint_file(state, path)
    net = slak()
    load_pretrained(net, path)
    assert zeros(net.state_dict()) == zeros(load_release_checkpoint(parts['teacher']))
    load_pretrained(ShiftWiseNet(MINI, 'v1'), path)


@pytest.mark.parametrize('decomposed', [True, False])
def test_conversion_keeps_everything(published, tmp_path, decomposed) -> None:
    source = published
    if not decomposed:
        source = tmp_path / 'square.pth'
        net = slak(decomposed=False, big_kernels=(9, 7, 7, 5), out_indices=(0, 1))
        with torch.no_grad():
            net.stages[0][0].large_kernel.square.conv.weight[:, :, :3] = 0
        save_checkpoint_file({'state_dict': net.state_dict()}, source)
    converted = tmp_path / 'converted.pth'
    report = convert_checkpoint(source, converted)
    assert report.unused == []
    checkpoint = load_checkpoint_file(converted)
    record = checkpoint['meta']['mmsw']
    assert record['backbone'].pop('type') == 'SLaK'
    assert len(record['scope']) == (BRANCHES if decomposed else 1)
    assert zeros(checkpoint['state_dict']) == zeros(load_release_checkpoint(source))
    net = SLaK(**record['backbone'])
    load_pretrained(net, converted)
    assert zeros(net.state_dict()) == zeros(checkpoint['state_dict'])
    with pytest.raises(CheckpointError, match='has no num_reps: leave --num-reps out'):
        convert_checkpoint(source, converted, num_reps=4)
    with pytest.raises(CheckpointError, match='leave --big-kernels out'):
        convert_checkpoint(source, converted, big_kernels=(3, 3, 3, 3))


def test_analysis_of_single_weights(published, tmp_path) -> None:
    analysis = analyze_sparsity(published, shape=(64, 64))
    density, expected = analysis.total.density, zeros(load_release_checkpoint(published))
    assert density.weights_total - density.weights_kept == sum(expected.values())
    shape = analysis.network.shape
    first = analysis.layers[0]  # 16 channels, M = 51, N = 5: 11 blocks each way, and one
    assert first.slots == 16 * (2 * 11 + 1)
    assert first.dense == 16 * (2 * 51 * 5 + 5 * 5) * 16 * 16
    assert (shape.big_kernels, shape.decomposed) == ((51, 49, 47, 13), True)


def test_analysis_of_empty_blocks(tmp_path) -> None:
    net = slak(big_kernels=(9, 7, 7, 5), small_kernel=3)
    with torch.no_grad():
        net.stages[0][0].large_kernel.vertical.conv.weight[:, :, :3] = 0
    path = tmp_path / 'file.pth'
    save_checkpoint_file({'state_dict': net.state_dict()}, path)
    analysis = analyze_sparsity(path, shape=(64, 64))
    first = analysis.layers[0]
    assert first.places['vertical', -3].kept == 0
    assert first.places['vertical', 3].kept == first.places['horizontal', -3].kept == 16
    assert first.dense - first.used == 16 * 3 * 3 * 16 * 16
    assert analysis.layers[1].used == analysis.layers[1].dense
