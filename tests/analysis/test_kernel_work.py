"""What pruning saves, by kernel: hand-counted networks, and get_flops.py on checkpoints."""

from __future__ import annotations

import json
import runpy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmsw.analysis.complexity import Complexity, KernelCounts, KernelWork, complexity, kernel_work
from mmsw.analysis.complexity.kernel_table import kernel_table
from mmsw.analysis.complexity.kernels import computed_weights, is_two_four
from mmsw.models import ShiftWiseConv2d
from mmsw.ops.assemble import assemble
from mmsw.sparsity import attach_masks, masks, set_masks

ROOT = Path(__file__).resolve().parents[2]


def kept(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_filters_channels_and_both() -> None:
    """A layer of 6 filters, 4 channels, 3 x 2 taps."""
    mask = kept(6, 4, 3, 2)
    assert computed_weights(mask) == KernelWork(144, 144, 144, 144, 144)
    mask[2] = False
    assert computed_weights(mask).cut == computed_weights(mask).single == 5 * 4 * 6
    mask[:, 1] = False
    assert computed_weights(mask).cut == computed_weights(mask).single == 5 * 3 * 6
    mask[0, 0, 0, 0] = False  # alone, it can be cut by nothing
    found = computed_weights(mask, block=(1, 1))
    assert (found.cut, found.blocks, found.single) == (90, 89, 89)


def test_blocks_and_their_edges() -> None:
    """A matrix of 5 x 6: blocks of 4 x 1 are 4 and 1 high; of 2 x 4, also 2 and 4 and 1 and 2."""
    mask = kept(5, 6)
    mask[:4, 0] = False
    mask[4, 1] = False
    assert computed_weights(mask, block=(4, 1)).blocks == 30 - 4 - 1
    assert computed_weights(mask, block=(2, 4)).blocks == 30
    mask[:2, 4:] = False
    mask[4, 4:] = False
    assert computed_weights(mask, block=(2, 4)).blocks == 30 - 4 - 2
    assert computed_weights(mask, block=(4, 1)).blocks == 30 - 4 - 1 - 2
    assert computed_weights(mask, block=(64, 64)).blocks == 30
    assert computed_weights(~kept(5, 6), block=(64, 64)).blocks == 0


def test_groups_are_cut_one_by_one() -> None:
    """Two groups of 3 filters and 2 channels each, 1 tap."""
    mask = kept(6, 2, 1, 1)
    mask[0] = False  # a filter of the first group
    mask[3:, 1] = False  # a channel of the second one
    # blocks of 4 x 1 are 3 x 1 here: the first group has none that is empty, the second has one
    assert computed_weights(mask, groups=2) == KernelWork(12, 2 * 2 + 3 * 1, 6 + 3, 12, 7)
    depthwise = kept(4, 1, 3, 3)
    depthwise[1:3] = False
    depthwise[3, 0, 0] = False
    found = computed_weights(depthwise, groups=4)
    # a block is never wider than a group: 1 x 1 here
    assert found == KernelWork(36, 18, 15, 36, 15)


def test_two_of_four() -> None:
    rows = kept(3, 8)
    rows.view(3, 2, 4)[..., :2] = False
    assert is_two_four(rows)
    assert computed_weights(rows).two_four == 12
    assert computed_weights(rows, groups=3).two_four == 24
    rows[0, 0] = True
    assert not is_two_four(rows)
    assert not is_two_four(~kept(3, 6))  # rows of 6 have no groups of four
    along = kept(2, 4, 1, 3)  # two of four channels at every tap, not of four in a row
    along[:, 0] = False
    along[0, 1, 0, :2] = along[0, 2, 0, 2] = along[1, 3] = False
    assert not bool((along.flatten(1).view(2, 3, 4).sum(2) <= 2).all())
    assert is_two_four(along)


class Net(nn.Module):
    """6 x 8 images: a convolution of stride 2, a depthwise, a transposed one and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(4, 8, 2, stride=2)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.depthwise(self.stem(x)))
        return self.fc(x.flatten(2).transpose(1, 2))


def test_hand_counted_network() -> None:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.stem.weight[0] = 0  # 27 of 108 weights, a filter
        net.depthwise.weight[1] = 0  # 9 of 36
        net.up.weight[2] = 0  # 32 of 128: an input channel
        net.fc.weight[:, :2] = 0
        net.fc.weight[:, 4:6] = 0  # 2:4, and input channels
    counts = complexity(net, (6, 8))
    found = kernel_work(net, counts, block=(2, 2))
    small, large = 3 * 4, 6 * 8  # positions
    assert found.modules == {
        'stem': KernelWork(*(small * n for n in (108, 81, 108, 108, 81))),
        'depthwise': KernelWork(*(small * n for n in (36, 27, 27, 36, 27))),
        'up': KernelWork(*(small * n for n in (128, 96, 128, 128, 96))),
        'fc': KernelWork(*(large * n for n in (16, 8, 8, 8, 8))),
    }
    assert found.total.dense == counts.macs_dense
    only = kernel_work(net, counts, scope={'fc.weight'}).modules
    assert only['stem'] == KernelWork(*[small * 108] * 5)
    assert only['fc'].cut == large * 8
    with pytest.raises(ValueError, match='at least one row'):
        kernel_work(net, counts, block=(0, 4))


def test_masks_count_where_weights_are_not_zero() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    attach_masks(net, '0.weight')
    new = masks(net)
    new['0'][1] = False
    set_masks(net, new)
    net[0].weight.data[1] = 1.0  # something moved them; the mask is what was meant
    work = kernel_work(net, complexity(net, (2, 5)))
    assert work.modules['0'].single == 10 * 9


def test_layers_that_others_compute_with_are_named_and_count_dense() -> None:
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(OrderedDict(flat=nn.Flatten(2), linear=nn.Linear(16, 8), encoder=net))
    with torch.no_grad():
        net.self_attn.out_proj.weight[:4] = 0
        net.linear1.weight[:4] = 0
    counts = complexity(model, (4, 4))
    found = kernel_work(model, counts)
    assert found.elsewhere == ('encoder.self_attn.out_proj',)
    attention = found.modules['encoder.self_attn']
    assert attention.dense == attention.single
    assert found.modules['encoder.linear1'].cut == 3 * 12 * 8
    assert 'other modules compute with them: encoder.self_attn.out_proj' in _text(counts, found)


def _text(counts: Complexity, found: KernelCounts) -> str:
    return ' '.join(kernel_table(replace(counts, kernels=found)).split())


def test_shift_wise_layers_are_those_of_the_cross_kernel() -> None:
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(8, 8, 13, num_reps=2)
    new = {name: torch.rand(mask.shape) < 0.3 for name, mask in masks(layer).items()}
    for mask in new.values():
        mask[::2] = False
    set_masks(layer, new)
    counts = complexity(layer, (8, 6, 5))
    work = kernel_work(layer, counts).modules['']
    assert (work.dense, work.cut, work.two_four) == (counts.macs_dense,) * 3
    assert work.blocks == counts.macs_used < counts.macs_dense
    ones = sum(path.mask.double() for path in layer.paths)
    filled = sum(int((kernel != 0).sum()) for kernel in assemble(ones, layer.pattern))
    assert work.single == filled * 30 < work.blocks


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    main = runpy.run_path(str(ROOT / 'tools' / 'get_flops.py'))['main']
    return lambda *arguments: main([str(argument) for argument in arguments])


SEGMENTOR = """default_scope = 'mmseg'
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor'),
    backbone=dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8, norm_cfg=norm_cfg,
        strides=(1, 2, 2, 2), num_stages=4, out_indices=(3,)),
    decode_head=dict(
        type='FCNHead', in_channels=64, in_index=0, channels=8, num_convs=1, num_classes=3,
        norm_cfg=norm_cfg),
    test_cfg=dict(mode='whole'))
"""


def test_a_pruned_resnet_alone_and_in_a_segmentor(tool, tmp_path: Path, capsys) -> None:
    from mmseg.models.backbones import ResNet

    torch.manual_seed(0)
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR)
    net = ResNet(18, base_channels=8, stem_channels=8)
    with torch.no_grad():
        net.layer4[0].conv1.weight[::2] = 0
        net.layer1[0].conv1.weight[:, ::2] = 0
    torch.save({**net.state_dict(), 'fc.weight': torch.zeros(2, 64)}, tmp_path / 'backbone.pth')
    options = ('--shape', 64, 64, '--json', tmp_path / 'a.json', '--block', 1, 2)
    assert tool(config, '--checkpoint', tmp_path / 'backbone.pth', *options) == 0
    printed = capsys.readouterr().out
    data = json.loads((tmp_path / 'a.json').read_text())['kernels']
    saved = (
        32 * 32 * 9 * 4 + 16 * 16 * 8 * 9 * 4
    )  # layer4: 32 -> 64, 2 x 2; layer1: 8 -> 8, 16 x 16
    saved = (32 * 9 * 32) * 2 * 2 + (8 * 4 * 9) * 16 * 16
    assert data['total']['dense'] - data['total']['cut'] == saved
    assert data['total']['single'] == data['total']['cut']
    assert data['parts']['decode_head']['cut'] == data['parts']['decode_head']['dense']
    assert data['block'] == [1, 2]
    assert 'blocks 1 x 2' in printed
    assert 'until the filters are really cut out' in ' '.join(printed.split())
    row = next(line.split() for line in printed.splitlines() if line.startswith('backbone'))
    assert int(row[1].replace(',', '')) - int(row[3].replace(',', '')) == 32 * 288 + 8 * 36

    whole = {f'backbone.{key}': tensor for key, tensor in net.state_dict().items()}
    whole['decode_head.conv_seg.weight'] = torch.zeros(3, 8, 1, 1)
    torch.save(dict(state_dict=whole), tmp_path / 'part.pth')
    assert tool(config, '--checkpoint', tmp_path / 'part.pth', *options) == 2
    assert 'are missing' in capsys.readouterr().err
    assert tool(config, '--checkpoint', tmp_path / 'backbone.pth', '--block', 0, 1) == 2
    assert 'at least one row' in capsys.readouterr().err
