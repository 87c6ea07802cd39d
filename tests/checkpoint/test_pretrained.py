"""init_cfg=dict(type='Pretrained'): what fits is loaded, what does not gives one clear error."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor

from mmsw.checkpoint import CheckpointError, NetworkShape, load_pretrained, load_release_checkpoint
from mmsw.models import ShiftWiseNet


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 64, 64)


@pytest.fixture
def saved(tmp_path) -> Callable[[object], str]:
    """Saves any contents and returns the path."""

    def save(content: object) -> str:
        torch.save(content, tmp_path / 'file.pth')
        return str(tmp_path / 'file.pth')

    return save


def merged(model: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published form with a single path: the sum of the paths."""
    result = {key: tensor for key, tensor in model.items() if '.LoRAs.' not in key}
    for key, weight in model.items():
        if key.endswith('.LoRAs.0.weight'):
            other = model[key.replace('.0.weight', '.1.weight')]
            result[key.replace('LoRAs.0', 'LoRA')] = weight + other
    return result


@torch.no_grad()
def assert_same_features(a: ShiftWiseNet, b: ShiftWiseNet, x: Tensor, bound: float) -> None:
    for found, expected in zip(a(x), b(x), strict=True):
        assert (found - expected).abs().max() <= bound * expected.abs().max()


class TestWhatFits:
    @pytest.mark.parametrize('form', ['absolute', 'relative', 'pathlib'])
    def test_forms_of_the_path(self, form, published_path, build_net, monkeypatch) -> None:
        monkeypatch.chdir(published_path.parent.parent)
        path = {
            'absolute': str(published_path.resolve()),
            'relative': os.path.join(published_path.parent.name, published_path.name),
            'pathlib': published_path,
        }[form]
        net = build_net(path)
        state = load_release_checkpoint(published_path)
        own = net.state_dict()
        assert all(torch.equal(own[key], t) for key, t in state.items() if key in own)

    @pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
    def test_list_of_init_cfgs(self, kind, published_path, build_net) -> None:
        """mmengine allows a list, and applies the file last."""
        cfg = [
            dict(type=kind, checkpoint=str(published_path)),
            dict(type='Constant', layer='Linear', val=0.5),
            dict(type='Constant', layer='LayerNorm', val=3.0),
        ]
        net = build_net(init_cfg=cfg)
        net.init_weights()
        assert net.init_cfg == cfg
        expected = build_net(str(published_path))
        for name, parameter in net.named_parameters():
            if not name.startswith('norm'):
                assert torch.equal(parameter, expected.get_parameter(name)), name

    def test_inside_a_model(self, published_path, build_net) -> None:
        class Model(BaseModule):
            def __init__(self) -> None:
                super().__init__()
                self.backbone = build_net(
                    init_cfg=dict(type='Pretrained', checkpoint=str(published_path))
                )

        model = Model()
        model.init_weights()
        expected = build_net(str(published_path))
        for name, parameter in model.backbone.named_parameters():
            assert torch.equal(parameter, expected.get_parameter(name)), name

    def test_output_norms_keep_their_initial_values(self, published_path, build_net) -> None:
        net = build_net(str(published_path))
        assert all((getattr(net, f'norm{i}').weight == 1).all() for i in range(4))

    def test_own_checkpoint_is_restored_completely(
        self, published_path, build_net, saved, image
    ) -> None:
        net = build_net(str(published_path))
        torch.nn.init.normal_(net.norm2.weight)
        path = saved({'meta': {'iter': 1}, 'state_dict': net.state_dict()})
        again = build_net(path)
        assert all(torch.equal(t, again.state_dict()[k]) for k, t in net.state_dict().items())
        assert_same_features(again, net, image, 0)

    def test_own_segmentor_checkpoint(self, published_path, build_net, saved) -> None:
        net = build_net(str(published_path))
        state = {f'backbone.{key}': tensor for key, tensor in net.state_dict().items()}
        state['decode_head.conv_seg.weight'] = torch.zeros(3)
        again = build_net(saved({'meta': {}, 'state_dict': state, 'optimizer': {}}))
        assert all(torch.equal(t, again.state_dict()[k]) for k, t in net.state_dict().items())

    def test_a_compiled_network(self, published_path, build_net) -> None:
        net = torch.compile(build_net(), backend='eager')
        load_pretrained(net, published_path)
        for key, tensor in build_net(str(published_path)).state_dict().items():
            assert torch.equal(net._orig_mod.state_dict()[key], tensor), key

    @pytest.mark.parametrize('num_paths', [1, 2, 3])
    @pytest.mark.parametrize('form', ['apart', 'merged'])
    def test_number_of_paths(
        self, form, num_paths, published_model, published_path, build_net, saved, image
    ) -> None:
        model = published_model if form == 'apart' else merged(published_model)
        net = build_net(saved({'model': model}), num_paths=num_paths)
        assert_same_features(net, build_net(str(published_path)), image, 1e-5)
        for module in net.modules():
            if hasattr(module, 'set_mask'):
                assert torch.equal(module.mask, module.weight != 0)
                assert not module.mask.all()

    def test_pruned_weights_of_an_own_file_stay_out_of_a_merge(self, build_net, saved) -> None:
        source = build_net()
        path = source.stages[0][0].shift_wise.paths[0]
        path.mask[:4] = False  # and the weights are left as they are
        target = build_net(saved(source.state_dict()), num_paths=1)
        merged_path = target.stages[0][0].shift_wise.paths[0]
        other = source.stages[0][0].shift_wise.paths[1]
        assert torch.equal(merged_path.weight[:4], other.weight[:4])

    @pytest.mark.xfail(
        strict=True, reason="a file without the authors' arguments: 51 and 49 both make 17 groups"
    )
    def test_other_kernels_of_the_same_group_count_are_refused(
        self, published_model, build_net, saved
    ) -> None:
        with pytest.raises(CheckpointError):
            build_net(saved(published_model), big_kernels=(49, 51, 47, 13))

    def test_log_says_what_was_loaded(self, published_path, build_net, caplog) -> None:
        logger = MMLogger.get_instance('loading')
        logger.addHandler(caplog.handler)
        logger.setLevel(logging.INFO)
        build_net(str(published_path))
        text = next(r.message for r in caplog.records if r.message.startswith('loaded'))
        assert str(published_path) in text
        assert re.search(r'215 of 243 tensors.*not used: head\.', text)
        assert re.search(r'density of the small kernels 0\.7\d+', text)


MISFITS = {
    'older generation': (dict(version='v1'), 'version v2 instead of v1'),
    'depths': (
        dict(arch=dict(depths=[1, 1, 3, 1], dims=[16, 24, 32, 40])),
        'depths (1, 1, 2, 1) instead of (1, 1, 3, 1)',
    ),
    'dims': (
        dict(arch=dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 48])),
        'dims (16, 24, 32, 40) instead of (16, 24, 32, 48)',
    ),
    'small kernel': (dict(small_kernel=5), 'small_kernel 3 instead of 5'),
    'big kernels': (
        dict(big_kernels=(51, 49, 47, 11)),
        'big_kernels (51, 49, 47, 13) instead of (51, 49, 47, 11)',
    ),
    'ghost ratio': (
        dict(ghost_ratio=0.5),
        'num_active (12, 18, 24, 30) instead of (8, 12, 16, 20)',
    ),
    'repetitions': (dict(num_reps=2), 'num_reps 4 instead of 2'),
    'image channels': (
        dict(in_channels=4),
        'is for images of 3 channels, the network for in_channels=4: downsample_layers.0.0.weight '
        '(8, 3, 3, 3) instead of (8, 4, 3, 3). Say how to fill it: init_cfg=dict('
        "type='Pretrained', checkpoint=..., input_weights='mean')",
    ),
    'layer scale': (dict(layer_scale_init_value=0), 'unexpected stages.0.0.gamma'),
}


class TestFewerStages:
    """out_indices=(0, 1, 2): the last stage is not built."""

    @pytest.mark.parametrize('form', ['published', 'own'])
    def test_a_full_file_fills_what_is_there(
        self, form, published_path, build_net, saved, image, caplog
    ) -> None:
        logger = MMLogger.get_instance('stages')
        logger.addHandler(caplog.handler)
        logger.setLevel(logging.INFO)
        whole = build_net(str(published_path))
        path = str(published_path) if form == 'published' else saved(whole.state_dict())
        net = build_net(path, out_indices=(0, 1, 2))
        with torch.no_grad():
            expected = build_net(path)(image)[:3]
            assert all(torch.equal(a, b) for a, b in zip(net(image), expected, strict=True))
        texts = [r.message for r in caplog.records if r.message.startswith('loaded')]
        assert 'behind the last output: stages [3]' in texts[-2]
        assert 'behind the last output' not in texts[-1]

    def test_its_own_file_is_restored_completely(self, build_net, saved, image) -> None:
        net = build_net(out_indices=(0, 2))
        again = build_net(saved(net.state_dict()), out_indices=(0, 2))
        assert all(torch.equal(t, again.state_dict()[k]) for k, t in net.state_dict().items())

    def test_differences_behind_the_last_output_do_not_matter(
        self, published_path, build_net, saved
    ) -> None:
        arch = dict(depths=[1, 1, 2, 5], dims=[16, 24, 32, 48])
        arguments = dict(arch=arch, big_kernels=(51, 49, 47, 9), out_indices=(1, 2))
        build_net(str(published_path), **arguments)  # whose own arguments say 13
        build_net(saved(build_net().state_dict()), **arguments)

    def test_differences_before_it_do(self, published_path, build_net) -> None:
        arch = dict(depths=[1, 1, 3, 1], dims=[16, 24, 32, 40])
        with pytest.raises(CheckpointError, match=r'depths \(1, 1, 2\) instead of \(1, 1, 3\)'):
            build_net(str(published_path), arch=arch, out_indices=(0, 1, 2))
        with pytest.raises(
            CheckpointError, match=r'big_kernels \(51, 49, 47\) instead of \(51, 49'
        ):
            build_net(str(published_path), big_kernels=(51, 49, 48, 13), out_indices=(0, 1, 2))

    def test_its_file_does_not_fill_a_whole_network(self, build_net, saved) -> None:
        path = saved(build_net(out_indices=(0, 1, 2)).state_dict())
        with pytest.raises(CheckpointError, match=r'depths \(1, 1, 2\) instead of \(1, 1, 2, 1\)'):
            build_net(path)


class TestMisfits:
    """One CheckpointError that names what was found and what was expected; nothing is changed."""

    @staticmethod
    def refused(build_net: Callable, path: str, **kwargs) -> str:
        net = build_net(**kwargs)
        before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        with pytest.raises(CheckpointError) as caught:
            load_pretrained(net, path)
        assert all(torch.equal(t, before[key]) for key, t in net.state_dict().items())
        assert path in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize('name', MISFITS)
    def test_published_file(self, name, published, build_net, saved) -> None:
        kwargs, message = MISFITS[name]
        published['args'].N_rep = 4
        found = self.refused(build_net, saved(published), **kwargs)
        assert message in found

    @pytest.mark.parametrize('name', MISFITS)
    def test_own_file(self, name, build_net, saved) -> None:
        kwargs, message = MISFITS[name]
        found = self.refused(build_net, saved(build_net().state_dict()), **kwargs)
        if name == 'big kernels':
            message = 'num_filters (204, 306, 384, 150) instead of (204, 306, 384, 120)'
        assert message in found

    def test_newer_generation(self, data_dir, build_net) -> None:
        path = str(data_dir / 'backbone_v1_mini_checkpoint.pth')
        message = self.refused(build_net, path, version='v2')
        assert 'version v1 instead of v2' in message
        found, expected = re.findall(r'(?:found|expected): +(v\d, depths .*)', message)
        assert found.startswith('v1, depths (1, 1, 2, 1), dims (16, 24, 32, 40)')
        assert expected.startswith('v2, depths (1, 1, 2, 1), dims (16, 24, 32, 40)')

    def test_big_kernels_by_the_group_count_alone(self, published_model, build_net, saved) -> None:
        message = self.refused(build_net, saved(published_model), big_kernels=(51, 49, 41, 13))
        assert 'num_filters (204, 306, 384, 150) instead of (204, 306, 336, 150)' in message
        assert "'46..48'" in message
        assert "'40..42'" in message

    def test_big_kernels_of_the_same_group_count_by_the_own_pattern(self, build_net, saved) -> None:
        state = build_net().state_dict()
        message = self.refused(build_net, saved(state), big_kernels=(49, 49, 47, 13))
        assert 'big kernel 51 in stage 0 instead of 49' in message
        message = self.refused(build_net, saved(state), big_kernels=(50, 49, 47, 13))
        assert 'big kernel 51 in stage 0 instead of 50' in message
        for key in [key for key in state if key.endswith('kernel_sizes')]:
            del state[key]  # as files of format 1
        message = self.refused(build_net, saved(state), big_kernels=(49, 49, 47, 13))
        assert 'big kernel 50 or 51 in stage 0 instead of 49' in message

    @pytest.mark.parametrize('kind', ['weight_orig alone', 'one dimension'])
    def test_tensors_of_another_kind(self, kind, build_net, saved) -> None:
        state = build_net().state_dict()
        for key in [key for key in state if '.paths.' in key and key.endswith('weight')]:
            weight = state.pop(key)
            if kind == 'one dimension':
                state[key] = weight.flatten()
                state[key.replace('weight', 'mask')] = torch.ones_like(state[key]).bool()
            else:
                state[f'{key}_orig'] = weight
        message = self.refused(build_net, saved(state))
        assert ('is of no shift-wise network' if 'alone' in kind else 'small_kernel') in message

    def test_incomplete_file(self, published_model, build_net, saved) -> None:
        for pattern, message in (
            (r'stages\.0\.0\.pwconv1', "no tensor 'stages.0.0.pointwise_conv1.weight'"),
            (r'stages\.1\.', 'depths (1, 2, 1) instead of (1, 1, 2, 1)'),
            (r'.*\.norm\.running_var', 'missing stages.0.0.norm.running_var'),
            (r'.*\.bn_small\.bias', 'missing stages.0.0.shift_wise.norm_i.bias'),
        ):
            model = {k: t for k, t in published_model.items() if not re.match(pattern, k)}
            assert message in self.refused(build_net, saved(model))

    def test_surplus_tensors(self, published_model, build_net, saved) -> None:
        published_model['stages.0.0.attention.weight'] = torch.zeros(3)
        message = self.refused(build_net, saved(published_model))
        assert 'unexpected stages.0.0.attention.weight' in message

    def test_damaged_tables_of_an_own_file(self, build_net, saved) -> None:
        key = 'stages.3.0.shift_wise.pattern.shift_hv'
        state = build_net().state_dict()
        state[key] = state[key].clone()
        state[key][0] = state[key][1]
        assert 'stages.3.0.shift_wise.pattern' in self.refused(build_net, saved(state))
        state = build_net().state_dict()
        state['stages.3.0.shift_wise.channel_order'] = torch.zeros(40, dtype=torch.int64)
        assert 'must be a permutation of 40 channels' in self.refused(build_net, saved(state))

    def test_deployed_network(self, published_path, build_net) -> None:
        net = build_net().switch_to_deploy()
        with pytest.raises(CheckpointError, match='no small kernels any more'):
            load_pretrained(net, published_path)

    def test_deployed_file(self, build_net, saved) -> None:
        message = self.refused(build_net, saved(build_net().switch_to_deploy().state_dict()))
        assert 'holds a folded network (saved after switch_to_deploy)' in message
        assert 'take the file from before folding' in message
        assert 'ShiftWiseNet(..., deploy=True), then call load_state_dict' in message

    def test_other_files(self, data_dir, build_net, saved, tmp_path) -> None:
        slak = str(data_dir / 'backbone_slak_mini_checkpoint.pth')
        assert 'SLaK' in self.refused(build_net, slak)
        assert 'another network' in self.refused(
            build_net, saved(torch.nn.Linear(2, 2).state_dict())
        )
        assert 'does not exist' in self.refused(build_net, str(tmp_path / 'absent.pth'))

    def test_a_failed_init_can_be_repeated(self, published_path, build_net, tmp_path) -> None:
        path = tmp_path / 'late.pth'
        net = build_net(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        with pytest.raises(CheckpointError, match='does not exist'):
            net.init_weights()
        path.write_bytes(Path(published_path).read_bytes())
        net.init_weights()
        assert not net.stages[0][0].shift_wise.paths[0].mask.all()


def test_network_shape(build_net) -> None:
    shape = NetworkShape.of(build_net(num_paths=3).state_dict())
    assert shape == NetworkShape(
        version='v2',
        depths=(1, 1, 2, 1),
        dims=(16, 24, 32, 40),
        num_active=(12, 18, 24, 30),
        small_kernel=3,
        num_filters=(12 * 17, 18 * 17, 24 * 16, 30 * 5),
        num_paths=3,
    )
    assert "big kernels in ('49..51', '49..51', '46..48', '13..15'), 3 path(s)" in str(shape)
    with pytest.raises(CheckpointError, match=r'no tensor .stages.0.0.pointwise_conv1'):
        NetworkShape.of({'stages.0.0.shift_wise.paths.0.weight': torch.zeros(4, 1, 3, 3)})
