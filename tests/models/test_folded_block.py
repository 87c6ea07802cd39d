"""Whole blocks folded by switch_to_deploy: the function of the training form in evaluation."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from model_helpers import (
    SHORT_KERNELS,
    mini_net,
    prune_half,
    randomise_batch_norms,
    relative_error,
)
from torch import Tensor, nn

from mmsw.checkpoint import load_checkpoint_file
from mmsw.errors import StateDictError
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.models.backbones import folded_block
from mmsw.models.backbones.shiftwise_block import ShiftWiseBlock
from mmsw.ops import bias_gelu, joined_samples, use_backend

VERSIONS = ('v1', 'v2')


def trained_net(version: str, **kwargs) -> ShiftWiseNet:
    """As after a training: no term of any layer has its first value, half is pruned."""
    torch.manual_seed(0)
    net = mini_net(**{'version': version, 'big_kernels': SHORT_KERNELS, **kwargs}).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1:  # norms, biases, layer scale, response norm
                parameter.normal_(float('norm' in name and name.endswith('weight')), 0.3)
            elif '.paths.' not in name:
                nn.init.kaiming_normal_(parameter, nonlinearity='linear')
    randomise_batch_norms(net)
    prune_half(net)
    return net


def folded(net: ShiftWiseNet) -> ShiftWiseNet:
    return copy.deepcopy(net).switch_to_deploy()


def blocks_of(net: ShiftWiseNet) -> list[ShiftWiseBlock]:
    return [module for module in net.modules() if isinstance(module, ShiftWiseBlock)]


@torch.no_grad()
def worst_error(net: ShiftWiseNet, other: nn.Module, image: Tensor) -> float:
    pairs = zip(other(image), net(image), strict=True)
    return max(relative_error(found.double(), wanted.double()) for found, wanted in pairs)


@pytest.fixture(scope='module', params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='module')
def net(version: str) -> ShiftWiseNet:
    """Not to be changed."""
    return trained_net(version)


@pytest.mark.parametrize('size', [(64, 64), (33, 70), (5, 97)])
@pytest.mark.parametrize('batch', [1, 3])
def test_outputs_in_either_precision(net: ShiftWiseNet, size: tuple[int, int], batch: int) -> None:
    image = torch.randn(batch, 3, *size)
    assert worst_error(net, folded(net), image) < 2e-5
    double = copy.deepcopy(net).double()
    assert worst_error(double, folded(double), image.double()) < 1e-10


@pytest.mark.parametrize(
    'arguments',
    [
        dict(big_kernels=(51, 49, 47, 13)),
        dict(num_reps=1, num_paths=1),
        dict(layer_scale_init_value=0.0),
        dict(drop_path_rate=0.3, with_cp=True, frozen_stages=2),
        dict(out_indices=(0, 2), output_norm=False),
        dict(ghost_ratio=0.0),
        dict(norm_cfg=dict(type='BN', eps=1e-2)),
        dict(small_kernel=1, ghost_ratio=0.6),
    ],
    ids=str,
)
def test_outputs_of_every_kind_of_network(version: str, arguments: dict) -> None:
    net = trained_net(version, **arguments).double()
    assert worst_error(net, folded(net), torch.randn(2, 3, 37, 50).double()) < 1e-10


def test_converted_norms_fold(net: ShiftWiseNet) -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert worst_error(net, folded(converted), torch.randn(1, 3, 64, 64)) < 2e-5


def test_norms_without_affine_terms_fold() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, norm_cfg=dict(type='BN', affine=False)).eval()
    assert worst_error(net, folded(net), torch.randn(1, 3, 64, 64)) < 2e-5


def test_wide_blocks_scale_the_map(monkeypatch: pytest.MonkeyPatch, net: ShiftWiseNet) -> None:
    monkeypatch.setattr(folded_block, '_MOST_SCALED_WEIGHTS', 0)
    image = torch.randn(2, 3, 40, 64)
    for found, wanted in zip(folded(net)(image), net(image), strict=True):  # with gradients
        assert relative_error(found, wanted) < 2e-5


def test_every_layer_may_have_an_order_of_its_own(version: str) -> None:
    net = trained_net(version, arch=dict(depths=[1, 1, 3, 1], dims=[8, 12, 16, 20])).double()
    for layer in net.modules():
        if isinstance(layer, ShiftWiseConv2d):
            layer.channel_order.copy_(torch.randperm(layer.in_channels))
    assert worst_error(net, folded(net), torch.randn(1, 3, 64, 64).double()) < 1e-10


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format])
def test_the_map_of_the_caller_stays(net: ShiftWiseNet, layout: torch.memory_format) -> None:
    block, other = blocks_of(net)[0], blocks_of(folded(net))[0]
    x = torch.randn(2, 16, 9, 14).contiguous(memory_format=layout)
    before = x.clone()
    with torch.no_grad():
        assert relative_error(other(x), block(x)) < 2e-5
    assert torch.equal(x, before)


def test_gradients_of_the_map_and_of_what_comes_before(net: ShiftWiseNet) -> None:
    """A frozen teacher may be folded, and the images may need a gradient."""
    net = copy.deepcopy(net).double()
    grads = []
    for each in (net, folded(net)):
        image = torch.linspace(-1, 1, 3 * 40 * 33, dtype=torch.float64).view(1, 3, 40, 33)
        image.requires_grad_()
        sum(out.sin().sum() for out in each(image)).backward()
        grads.append((image.grad, each.downsample_layers[0][0].weight.grad))
    for found, wanted in zip(grads[1], grads[0], strict=True):
        assert relative_error(found, wanted) < 1e-8


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.bfloat16, 0.1), (torch.float16, 0.02)], ids=str
)
def test_half_precision(net: ShiftWiseNet, dtype: torch.dtype, tolerance: float) -> None:
    image, cast = torch.randn(1, 3, 64, 64), folded(net).to(dtype)
    with torch.no_grad():
        for found, wanted in zip(cast(image.to(dtype)), net(image), strict=True):
            assert found.dtype == dtype
            assert relative_error(found.float(), wanted) < tolerance


def test_autocast(net: ShiftWiseNet) -> None:
    image = torch.randn(1, 3, 64, 64)
    other = folded(net)
    with torch.no_grad():
        wanted = net(image)
        with torch.autocast('cpu', torch.bfloat16):
            found = other(image)
    assert all(relative_error(f.float(), w) < 0.1 for f, w in zip(found, wanted, strict=True))


def test_samples_of_small_maps_are_joined(
    net: ShiftWiseNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any batch and size, beside one product for each sample."""
    other = folded(net)
    for batch, height, width in ((5, 40, 64), (2, 96, 64), (1, 40, 64), (3, 30, 7)):
        image = torch.randn(batch, 3, height, width)
        assert worst_error(net, other, image) < 2e-5
        with monkeypatch.context() as patch, torch.no_grad():
            found = other(image)
            patch.setattr(joined_samples, '_MANY_POSITIONS', 0)
            for joined, apart in zip(found, other(image), strict=True):
                assert joined.is_contiguous()
                assert relative_error(joined, apart) < 1e-5


def test_blocks_take_the_backend_that_they_name(
    net: ShiftWiseNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, seen = folded(net), []

    def pass_of(*args) -> tuple[Tensor, Tensor]:
        seen.append(args[-1])
        return bias_gelu(*args)

    monkeypatch.setattr(folded_block, 'bias_gelu', pass_of)
    for block in blocks_of(other):
        block.backend = 'torch'
    assert worst_error(net, other, torch.randn(2, 3, 40, 64)) < 2e-5
    assert set(seen) == {'torch'}


def test_plain_operators(net: ShiftWiseNet) -> None:
    with use_backend('torch'):
        assert worst_error(net, folded(net), torch.randn(2, 3, 48, 64)) < 2e-5


def test_a_folded_block_has_only_what_it_needs(version: str, net: ShiftWiseNet) -> None:
    arms = {'deploy_wide', 'deploy_tall', 'deploy_bias'}
    names = {'expand_weight', 'expand_bias', 'reduce_weight', 'reduce_bias'}
    if version == 'v2':
        names |= {'squeeze_weight', 'squeeze_bias', 'excite_weight', 'excite_bias', 'response'}
    for block in blocks_of(folded(net)):
        assert not list(block.children())
        assert dict(block.named_buffers()).keys() == arms
        assert dict(block.named_parameters()).keys() == names


def test_frozen_blocks_stay_frozen(version: str) -> None:
    net = trained_net(version, frozen_stages=2).switch_to_deploy()
    for index, stage in enumerate(net.stages):
        assert {p.requires_grad for p in stage.parameters()} == {index >= 2}


def test_hooks_of_blocks_stay(net: ShiftWiseNet) -> None:
    other, seen = copy.deepcopy(net), []
    other.stages[2][1].register_forward_hook(lambda *_: seen.append(1))
    other.switch_to_deploy()(torch.randn(1, 3, 32, 32))
    assert seen == [1]


def test_layers_outside_of_blocks_fold_too(net: ShiftWiseNet) -> None:
    other = copy.deepcopy(net)
    other.extra = ShiftWiseConv2d(8, 8, 5)
    assert other.switch_to_deploy().extra.deployed


def test_blocks_of_a_newer_version_are_refused(net: ShiftWiseNet) -> None:
    other = folded(net)
    state = other.state_dict()
    state._metadata['stages.1.0']['version'] = 9
    with pytest.raises(StateDictError, match=r'block "stages\.1\.0" has the version 9 of Shift'):
        other.load_state_dict(state)


def test_state_dict_round_trip(net: ShiftWiseNet) -> None:
    other = folded(net)
    file = io.BytesIO()
    torch.save(other.state_dict(), file)
    file.seek(0)
    again = ShiftWiseNet(**net.settings, deploy=True).eval()
    again.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert worst_error(other, again, torch.randn(1, 3, 64, 64)) == 0
    before = {key: tensor.clone() for key, tensor in other.state_dict().items()}
    after = other.switch_to_deploy().state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def earlier_form(net: ShiftWiseNet) -> ShiftWiseNet:
    """As switch_to_deploy() left a network at first: the shift-wise layers folded, no more."""
    net = copy.deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, ShiftWiseConv2d):
            layer.switch_to_deploy()
    return net


def test_the_earlier_form_is_folded_on_the_way_in(net: ShiftWiseNet) -> None:
    earlier = earlier_form(net)
    again = ShiftWiseNet(**net.settings, deploy=True).eval()
    state = earlier.state_dict()
    keys = set(state)
    assert str(again.load_state_dict(state, strict=True)) == '<All keys matched successfully>'
    assert set(state) == keys
    assert worst_error(net, again, torch.randn(1, 3, 64, 64)) < 2e-5
    assert worst_error(net, earlier.switch_to_deploy(), torch.randn(1, 3, 64, 64)) < 2e-5


@pytest.mark.parametrize('generation', [1, 2])
def test_files_of_the_earlier_form(generation: int, data_dir) -> None:
    from tiny_run import tiny_net

    name = f'own_v{generation}_folded.pth'
    state = load_checkpoint_file(data_dir / name)['state_dict']
    own = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    earlier, again = earlier_form(tiny_net()).eval(), tiny_net(deploy=True).eval()
    earlier.load_state_dict(own, strict=True)
    again.load_state_dict(own, strict=True)
    assert worst_error(earlier, again, torch.randn(2, 3, 32, 32)) < 2e-5


def _without(key: str) -> Callable[[dict], None]:
    return lambda state: state.pop(f'stages.1.0.{key}')


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (_without('pointwise_conv1.weight'), r'block \"stages\.1\.0\" cannot be folded.*conv1\.w'),
        (_without('shift_wise.channel_order'), 'must be a permutation of 24 channels.*got None'),
    ],
)
def test_a_damaged_file_of_the_earlier_form(
    net: ShiftWiseNet, damage: Callable[[dict], None], message: str
) -> None:
    state = earlier_form(net).state_dict()
    damage(state)
    with pytest.raises(StateDictError, match=message):
        folded(net).load_state_dict(state)


@pytest.mark.parametrize(
    ('norm_cfg', 'found'),
    [
        (dict(type='GN', num_groups=2), r'stages\.0\.0\.shift_wise\.norm_h is a GroupNorm'),
        (dict(type='BN', track_running_stats=False), r'norm_h is a BatchNorm2d without them'),
    ],
)
def test_norms_that_cannot_be_folded_are_named(norm_cfg: dict, found: str) -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, norm_cfg=norm_cfg).eval()
    before = set(net.state_dict())
    with pytest.raises(TypeError, match=f'only batch norms with running statistics.*{found}'):
        net.switch_to_deploy()
    assert set(net.state_dict()) == before


def test_the_last_norm_of_a_network_is_looked_at_before_the_first_is_folded() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS).eval()
    net.stages[3][0].norm2 = nn.GroupNorm(2, 40)
    before = set(net.state_dict())
    with pytest.raises(TypeError, match=r'stages\.3\.0\.norm2 is a GroupNorm; keep'):
        net.switch_to_deploy()
    assert set(net.state_dict()) == before


OTHER_SIZES = (3, 3, 80, 65), (2, 3, 128, 100), (4, 3, 64, 64)


@pytest.fixture(scope='module')
def short_net(version: str) -> ShiftWiseNet:
    """Folded, one block in each of two stages, the second of which joins samples of 64 positions.

    Of v1 the first stage alone, for time. Not to be changed.
    """
    arch = dict(depths=[1] * 4, dims=[8, 12, 16, 20])
    stages = (0,) if version == 'v1' else (0, 1)
    return trained_net(version, arch=arch, out_indices=stages).switch_to_deploy()


def test_exported_for_any_batch_and_size(short_net: ShiftWiseNet) -> None:
    dims = {0: torch.export.Dim('b', max=64), 2: torch.export.Dim('h', min=64, max=512)}
    dims[3] = torch.export.Dim('w', min=64, max=512)
    program = torch.export.export(short_net, (torch.randn(2, 3, 64, 96),), dynamic_shapes=(dims,))
    assert not [node for node in program.graph.nodes if 'mmsw' in str(node.target)]
    for shape in (*OTHER_SIZES, (1, 3, 64, 96)):
        assert worst_error(short_net, program.module(), torch.randn(shape)) < 2e-5


def test_compiled_for_any_batch_and_size(short_net: ShiftWiseNet) -> None:
    graphs = []

    def keep(graph: torch.fx.GraphModule, example: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(short_net, fullgraph=True, dynamic=True, backend=keep)
    for shape in ((2, 3, 64, 96), *OTHER_SIZES):
        assert worst_error(short_net, compiled, torch.randn(shape)) < 2e-5
    assert len(graphs) == 1


def test_traced(version: str) -> None:
    other = trained_net(version, out_indices=(0,)).switch_to_deploy()
    with torch.no_grad():
        traced = torch.jit.trace(other, torch.randn(1, 3, 64, 64))
    graph = str(traced.inlined_graph)
    assert 'mmsw::' not in graph
    assert 'mmsw_cpp::' not in graph
    assert worst_error(other, traced, torch.randn(2, 3, 70, 96)) < 2e-5


def test_compiled(net: ShiftWiseNet) -> None:
    block = blocks_of(folded(net))[0]
    compiled = torch.compile(block, fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 16, 9, 14)
    with torch.no_grad():
        assert relative_error(compiled(x), block(x)) < 2e-5
