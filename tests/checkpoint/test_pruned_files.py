"""What is pruned in a file stays pruned: zeros under masks, masks of any layer, torch's pruners."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.ao.pruning import FakeSparsity
from torch.nn.utils import parametrizations, parametrize, prune

from mmsw.checkpoint import CheckpointError, load_pretrained, to_state_dict
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import attach_masks, masked_layers, masks, report, set_masks

PATH = 'stages.0.0.shift_wise.paths.0'
LINEAR = 'stages.0.0.pointwise_conv1'
SCOPE = r'pointwise_conv\d\.weight'


@pytest.fixture
def save(tmp_path) -> Callable[[object], str]:
    """Writes contents into a file and returns its path."""

    def write(content: object) -> str:
        torch.save(content, tmp_path / 'file.pth')
        return str(tmp_path / 'file.pth')

    return write


@pytest.fixture
def loaded(build_net, save) -> Callable[..., ShiftWiseNet]:
    """A fresh network filled from contents that went through a file."""

    def load(content: object, **kwargs) -> ShiftWiseNet:
        net = build_net(**kwargs)
        load_pretrained(net, save(content))
        return net

    return load


@pytest.fixture
def log(caplog) -> Callable[[str], list[logging.LogRecord]]:
    """The records whose text has a part."""
    logger = MMLogger.get_instance('pruned-files')
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    return lambda part: [record for record in caplog.records if part in record.message]


@torch.no_grad()
def zeroed_by_hand(net: ShiftWiseNet) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dict with half of the filters and some weights zero under full masks; what is left."""
    state, kept = net.state_dict(), {}
    for name, layer in masked_layers(net):
        keep = torch.rand(layer.weight.shape) < 0.9
        keep[::2] = False
        keep[1] = True
        state[f'{name}.weight'] = torch.where(keep, layer.weight, 0.0)
        assert state[f'{name}.mask'].all()
        kept[name] = keep
    return state, kept


def assert_masks(net: ShiftWiseNet, expected: dict[str, Tensor]) -> None:
    found = masks(net)
    for name, mask in expected.items():
        assert torch.equal(found[name], mask), name
        assert (net.get_submodule(name).weight[~mask] == 0).all(), name


@pytest.mark.parametrize('wrapped', [False, True])
def test_zeros_under_full_masks_become_masks(wrapped, build_net, loaded, log) -> None:
    state, kept = zeroed_by_hand(build_net())
    net = loaded({'meta': {}, 'state_dict': state} if wrapped else state)
    assert_masks(net, kept)
    total = report(net).total
    assert total.weights_kept == sum(int(mask.sum()) for mask in kept.values())
    zeros = total.weights_total - total.weights_kept
    said = log(f'{zeros} weights in {len(kept)} masks are exactly zero although the masks keep')
    assert len(said) == 1
    assert said[0].levelno == logging.WARNING
    assert len(log(f'density of the small kernels {total.weight_density:.4f}')) == 1


def test_zeros_of_a_dynamic_run_stay_trainable(build_net, loaded, log) -> None:
    """Filters that have just grown are zero."""
    state, kept = zeroed_by_hand(build_net())
    net = loaded({'state_dict': state, 'dynamic_sparsity': {'updates': 3}})
    assert not report(net).total.is_sparse
    zeros = sum(int((~mask).sum()) for mask in kept.values())
    assert (
        len(log(f'{zeros} weights in {len(kept)} masks are kept and exactly zero; they stay')) == 1
    )


def test_a_file_without_zeros_says_nothing(build_net, loaded, log) -> None:
    loaded(build_net().state_dict())
    assert not log('exactly zero')
    assert not [r for r in log('') if r.levelno >= logging.WARNING]


def test_an_empty_path_is_said(build_net, loaded, log) -> None:
    state = build_net().state_dict()
    state[f'{PATH}.weight'] = torch.zeros_like(state[f'{PATH}.weight'])
    net = loaded(state)
    assert not masks(net)[PATH].any()
    said = log(f'nothing is left of {PATH}: every weight is pruned')
    assert [record.levelno for record in said] == [logging.WARNING]


@pytest.mark.parametrize('num_paths', [1, 3])
def test_zeros_under_full_masks_survive_another_number_of_paths(
    num_paths, build_net, loaded
) -> None:
    state, kept = zeroed_by_hand(build_net())
    net = loaded(state, num_paths=num_paths)
    either = kept[PATH] | kept[PATH.replace('paths.0', 'paths.1')]
    assert_masks(net, {f'{PATH[:-1]}{path}': either for path in range(num_paths)})


class TestMasksOfOrdinaryLayers:
    """A checkpoint of a run with ``scope=`` has masks that a fresh network has no place for."""

    @pytest.fixture
    def pruned(self, build_net) -> ShiftWiseNet:
        net = build_net()
        names = attach_masks(net, SCOPE)
        set_masks(net, {n: torch.rand(net.get_submodule(n).weight.shape) < 0.3 for n in names})
        return net

    @pytest.mark.parametrize('prefix', ['', 'backbone.', 'teacher.'])
    def test_are_attached(self, prefix, pruned, loaded, log) -> None:
        state = {prefix + key: tensor for key, tensor in pruned.state_dict().items()}
        net = loaded(state)
        assert_masks(net, masks(pruned))
        assert {name for name, _ in masked_layers(net)} == set(masks(pruned))
        own = net.state_dict()
        assert all(torch.equal(own[key], t) for key, t in pruned.state_dict().items())
        assert len(log('; 10 other layers are masked as in the file')) == 1

    def test_prune_the_gradient(self, pruned, loaded) -> None:
        net = loaded(pruned.state_dict()).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            sum(f.square().sum() for f in net(torch.randn(2, 3, 32, 32))).backward()
            optimizer.step()
        assert_masks(net, masks(pruned))

    def test_zeros_in_them_become_masks_too(self, pruned, loaded) -> None:
        state = pruned.state_dict()
        state[f'{LINEAR}.mask'] = torch.ones_like(state[f'{LINEAR}.mask'])
        assert_masks(loaded(state), masks(pruned))

    def test_replace_those_that_the_network_has(self, pruned, build_net, published_path) -> None:
        load_pretrained(pruned, published_path)  # dense in its ordinary layers
        expected = build_net(str(published_path))
        for name, parameter in expected.named_parameters():
            assert torch.equal(pruned.get_parameter(name), parameter), name
        assert masks(pruned)[LINEAR].all()

    def test_nothing_is_attached_when_the_file_is_refused(self, pruned, build_net, save) -> None:
        state = pruned.state_dict()
        order = 'stages.3.0.shift_wise.channel_order'
        state[order] = torch.zeros_like(state[order])
        net = build_net()
        before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        with pytest.raises(CheckpointError, match='must be a permutation'):
            load_pretrained(net, save(state))
        after = net.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], tensor) for key, tensor in before.items())

    def test_of_no_layer_are_refused(self, build_net, loaded) -> None:
        state = build_net().state_dict()
        state['stages.0.0.gamma.mask'] = torch.ones(16, dtype=torch.bool)
        with pytest.raises(CheckpointError, match=r'unexpected stages\.0\.0\.gamma\.mask'):
            loaded(state)


def test_ordinary_zeros_without_a_mask_are_said(build_net, loaded, log) -> None:
    state = build_net().state_dict()
    weight = state[f'{LINEAR}.weight'].clone()
    weight[:10] = 0
    state[f'{LINEAR}.weight'] = weight
    loaded(state)
    said = log(f'{10 * weight.shape[1]} weights of {LINEAR} are exactly zero and have no mask')
    assert [record.levelno for record in said] == [logging.WARNING]


class TestTorchPrune:
    """Files of ``torch.nn.utils.prune``, and what is like them but cannot be read."""

    @staticmethod
    def pruned(net: ShiftWiseNet) -> ShiftWiseNet:
        prune.random_unstructured(net.get_submodule(PATH), 'weight', amount=0.5)
        prune.random_structured(net.get_submodule(LINEAR), 'weight', amount=0.5, dim=0)
        return net

    def test_shift_wise_and_ordinary_layers(self, build_net, loaded, log) -> None:
        source = self.pruned(build_net())
        expected = {n: source.get_submodule(n).weight_mask.bool() for n in (PATH, LINEAR)}
        assert f'{PATH}.weight' not in source.state_dict()
        net = loaded(source.state_dict())
        assert_masks(net, expected)
        for name, mask in expected.items():
            found = net.get_submodule(name).weight
            assert torch.equal(found[mask], source.get_submodule(name).weight_orig[mask])
        for name, layer in net.named_modules():
            if hasattr(layer, 'mask') and name not in expected:
                assert layer.mask.all()

    def test_published_names(self, build_net, loaded, published, published_path) -> None:
        """The authors' network, pruned once more with torch's tool."""
        model = published['model']
        small, large = 'stages.0.0.large_kernel.LoRAs.0', 'stages.0.0.pwconv1.1'
        for name in (small, large):
            weight = model.pop(f'{name}.weight')
            model[f'{name}.weight_orig'] = weight
            model[f'{name}.weight_mask'] = (torch.rand(weight.shape) < 0.5).float()
        net = loaded(published)
        before = build_net(str(published_path))
        keep = model[f'{small}.weight_mask'].bool() & masks(before)[PATH]
        assert_masks(net, {PATH: keep, LINEAR: model[f'{large}.weight_mask'].bool()})

    def test_a_pruned_bias_is_said(self, build_net, loaded, log) -> None:
        source = build_net()
        prune.random_unstructured(source.get_submodule(LINEAR), 'bias', amount=0.5)
        prune.random_unstructured(source.get_submodule(LINEAR), 'weight', amount=0.5)
        net = loaded(source.state_dict())
        assert torch.equal(net.get_submodule(LINEAR).bias, source.get_submodule(LINEAR).bias)
        assert len(log(f'also pruned {LINEAR}.bias; only weights')) == 1

    @pytest.mark.parametrize('layer', [PATH, LINEAR])
    @pytest.mark.parametrize('kind', ['weight_norm', 'sparsifier'])
    def test_parametrizations_name_the_cure(self, kind, layer, build_net, loaded) -> None:
        """They save no mask, and not the weight itself."""
        source = build_net()
        if kind == 'weight_norm':
            parametrizations.weight_norm(source.get_submodule(layer))
        else:
            full = FakeSparsity(torch.ones_like(source.get_submodule(layer).weight))
            parametrize.register_parametrization(source.get_submodule(layer), 'weight', full)
        with pytest.raises(CheckpointError) as caught:
            loaded(source.state_dict())
        assert f'the weight of {layer} is parametrized' in str(caught.value)
        assert "parametrize.remove_parametrizations(layer, 'weight')" in str(caught.value)
        assert 'squash_mask()' in str(caught.value)


def test_to_state_dict_leaves_the_contents_alone(build_net) -> None:
    source = TestTorchPrune.pruned(build_net())
    state = source.state_dict()
    before = copy.copy(state)
    found = to_state_dict(state)
    assert state.keys() == before.keys()
    assert not {key for key in found if key.endswith(('_orig', '_mask'))}
    assert isinstance(source.get_submodule(LINEAR), nn.Linear)
