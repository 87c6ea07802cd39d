"""Every way from a file into a network looks at the format of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny_run import POINTWISE, TinyModel, tiny_config, tiny_net

from mmsw.apis import build_runner, init_model
from mmsw.apis.complexity_report import count_complexity
from mmsw.apis.convert import convert_checkpoint
from mmsw.apis.sparsity_analysis import analyze_sparsity
from mmsw.checkpoint import (
    FORMAT,
    CheckpointError,
    load_checkpoint_file,
    load_pretrained,
    load_release_checkpoint,
    network_record,
    read_record,
    save_checkpoint_file,
)
from mmsw.errors import UsageError
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import attach_masks
from mmsw.version import __version__

REPORT = dict(type='SparsityReportHook')


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory, plain_config_text: None) -> Path:
    """The file of a training."""
    folder = tmp_path_factory.mktemp('trained')
    build_runner(tiny_config(folder)).train()
    return folder / 'iter_2.pth'


def changed(path: Path, target: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a checkpoint with changed contents."""
    content = load_checkpoint_file(path)
    change(content)
    save_checkpoint_file(content, target)
    return target


def own_path(path: Path) -> Path:
    return path.with_name('own.pth')


def start(path: Path, cfg: Config, owner: ConfigDict) -> None:
    """A training in which a part of the model starts from the file."""
    owner.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    build_runner(cfg).train()


def load_from(path: Path, cfg: Config, build: Callable[[Config], Runner]) -> None:
    cfg.load_from = str(path)
    build(cfg).train()


def own_runner(cfg: Config) -> Runner:
    """mmengine's, with a hook of mmsw."""
    cfg.custom_hooks = [REPORT]
    return Runner.from_cfg(cfg)


READERS: dict[str, Callable[[Path, Config], object]] = {
    'load_pretrained': lambda path, cfg: load_pretrained(MODELS.build(cfg.model.backbone), path),
    'load_release_checkpoint': lambda path, _: load_release_checkpoint(path),
    'init_model': lambda path, cfg: init_model(cfg, path),
    'resume': lambda path, cfg: build_runner(cfg, resume=path).train(),
    'load_from': lambda path, cfg: load_from(path, cfg, build_runner),
    'load_from with a hook': lambda path, cfg: load_from(path, cfg, own_runner),
    'init_cfg of the backbone': lambda path, cfg: start(path, cfg, cfg.model.backbone),
    'init_cfg of the model': lambda path, cfg: start(path, cfg, cfg.model),
    'convert': lambda path, _: convert_checkpoint(path, own_path(path)),
    'convert, trusted': lambda path, _: convert_checkpoint(path, own_path(path), trust=True),
    'get_flops': lambda path, cfg: count_complexity(cfg, (32, 32), path),
    'analyze_sparsity': lambda path, _: analyze_sparsity(path),
    'analyze_sparsity with a config': lambda path, cfg: analyze_sparsity(path, cfg),
}
WHOLE_MODEL = ('init_model', 'resume', 'load_from', 'init_cfg of the model', 'get_flops')


@pytest.mark.parametrize('reader', READERS)
def test_a_newer_format_is_refused_by_name(reader: str, trained: Path, tmp_path: Path) -> None:
    def renew(content: dict) -> None:
        content['meta']['mmsw'].update(format=FORMAT + 1, version='0.4.0')

    path = changed(trained, tmp_path / 'newer.pth', renew)
    with pytest.raises(CheckpointError) as caught:
        READERS[reader](path, tiny_config(tmp_path / 'new'))
    who = 'the checkpoint' if reader == 'load_from with a hook' else path
    assert str(caught.value) == (
        f'{who} has the format 3 of mmsw 0.4.0, this mmsw {__version__} reads up to 2: install a '
        'newer mmsw'
    )


@pytest.mark.parametrize(
    ('kept', 'reader'),
    [('without a record', reader) for reader in READERS]
    # no training can go on without the number of its iterations
    + [('without meta', reader) for reader in READERS if reader != 'resume'],
)
def test_older_files_are_read(reader: str, kept: str, trained: Path, tmp_path: Path) -> None:
    """Neither with meta.mmsw nor with the sizes of the kernels."""

    def age(content: dict) -> None:
        del content['meta']['mmsw']
        if kept == 'without meta':
            del content['meta']
        for key in [key for key in content['state_dict'] if key.endswith('kernel_sizes')]:
            del content['state_dict'][key]

    path = changed(trained, tmp_path / 'older.pth', age)
    READERS[reader](path, tiny_config(tmp_path / 'new'))


@pytest.mark.parametrize('reader', WHOLE_MODEL)
def test_patterns_of_other_kernels_are_refused(reader: str, tmp_path: Path) -> None:
    """Of 8 and 9 the tables are the same, and all shapes."""
    configs = [tiny_config(tmp_path / 'even'), tiny_config(tmp_path / 'odd')]
    for cfg, kernel in zip(configs, (8, 9), strict=True):
        cfg.model.backbone.big_kernels = (kernel, 7, 5, 3)
    build_runner(configs[0]).train()
    message = r'the shift pattern backbone\.stages\.0\.0\.\S+ cannot be loaded: .* \[8, 3\], those'
    with pytest.raises(CheckpointError, match=message) as caught:
        READERS[reader](tmp_path / 'even/iter_2.pth', configs[1])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize('reader', WHOLE_MODEL)
def test_a_config_that_builds_folded_layers_says_so(
    reader: str, trained: Path, tmp_path: Path
) -> None:
    cfg = tiny_config(tmp_path)
    cfg.model.backbone.deploy = True
    with pytest.raises((CheckpointError, UsageError), match='leave deploy=True'):
        READERS[reader](trained, cfg)


@pytest.mark.parametrize('record', [None, 2, {}, {'format': '2'}, {'format': 0}, {'format': True}])
def test_a_damaged_record_is_refused(record: object, tmp_path: Path) -> None:
    save_checkpoint_file({'meta': {'mmsw': record}, 'state_dict': {}}, tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match=r"bad\.pth is damaged: its meta\['mmsw'\] must be"):
        load_checkpoint_file(tmp_path / 'bad.pth')


@pytest.mark.parametrize('meta', ['text', ['a', 'list'], {'dataset_meta': ['a', 'list']}])
def test_meta_data_of_another_kind_are_refused(meta: object, trained: Path, tmp_path: Path) -> None:
    path = changed(trained, tmp_path / 'bad.pth', lambda content: content.update(meta=meta))
    message = r'bad\.pth is damaged: its (meta is a str|meta is a list|dataset_meta is a list), a'
    with pytest.raises(CheckpointError, match=message):
        init_model(tiny_config(tmp_path), path)


def test_sizes_that_are_no_tensor_are_refused(trained: Path, tmp_path: Path) -> None:
    def spoil(content: dict) -> None:
        content['state_dict']['backbone.stages.0.0.shift_wise.pattern.kernel_sizes'] = [7, 3]

    path = changed(trained, tmp_path / 'bad.pth', spoil)
    with pytest.raises(CheckpointError, match='kernel_sizes is a list, a tensor was expected'):
        init_model(tiny_config(tmp_path), path)


@MODELS.register_module()
class WithSettings(ShiftWiseNet):
    """Has settings of its own."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.settings = 'mine'


class TestRecord:
    def test_of_a_network_with_settings_of_its_own(self, trained: Path, tmp_path: Path) -> None:
        cfg = tiny_config(tmp_path)
        cfg.model.backbone.type = 'WithSettings'
        build_runner(cfg).train()
        found = load_checkpoint_file(tmp_path / 'iter_2.pth')
        assert found['meta']['mmsw'] == load_checkpoint_file(trained)['meta']['mmsw']

    def test_it_is_folded_where_all_layers_are(self) -> None:
        pair = torch.nn.ModuleDict({'student': tiny_net(), 'teacher': tiny_net(deploy=True)})
        assert network_record(pair)['deploy'] is False
        pair['student'].switch_to_deploy()
        assert network_record(pair)['deploy'] is True

    def test_of_a_training(self, trained: Path) -> None:
        record = read_record(load_checkpoint_file(trained), 'trained')
        assert {key: record[key] for key in ('format', 'version', 'scope', 'deploy')} == {
            'format': FORMAT,
            'version': __version__,
            'scope': [],
            'deploy': False,
        }
        state = load_checkpoint_file(trained)['state_dict']
        built = ShiftWiseNet(**record['backbone'])
        assert {f'backbone.{key}': t.shape for key, t in built.state_dict().items()} == {
            key: tensor.shape for key, tensor in state.items() if key.startswith('backbone.')
        }

    def test_of_mmengines_own_runner(self, trained: Path, tmp_path: Path) -> None:
        """A hook writes the same."""
        Runner.from_cfg(tiny_config(tmp_path, custom_hooks=[REPORT])).train()
        found = load_checkpoint_file(tmp_path / 'iter_2.pth')
        assert found['meta']['mmsw'] == load_checkpoint_file(trained)['meta']['mmsw']
        init_model(tiny_config(tmp_path), tmp_path / 'iter_2.pth')

    def test_masked_layers_are_named(self, tmp_path: Path) -> None:
        scope = rf'{POINTWISE.removeprefix("backbone.")}\.weight'
        sparse = dict(type='DynamicSparsityHook', start='erk', sparsity=0.5, scope=scope)
        build_runner(tiny_config(tmp_path, custom_hooks=[sparse])).train()
        assert load_checkpoint_file(tmp_path / 'iter_2.pth')['meta']['mmsw']['scope'] == [POINTWISE]

    def test_it_tells_the_form(self) -> None:
        net = tiny_net()
        backbone = network_record(net)['backbone']
        assert network_record(net.switch_to_deploy()) == {
            **network_record(tiny_net()),
            'deploy': True,
            'backbone': backbone,
        }
        assert network_record(ShiftWiseNet(**backbone, deploy=True))['deploy']

    def test_of_several_networks_and_of_none(self) -> None:
        pair = torch.nn.ModuleDict({'student': tiny_net(), 'teacher': tiny_net()})
        assert network_record(pair)['backbone'] == tiny_net().settings
        attach_masks(pair, r'^student.*pointwise_conv1\.weight')
        assert len(network_record(pair)['scope']) == 4
        pair['teacher'] = tiny_net(num_reps=2)
        assert network_record(pair)['backbone'] is None
        assert network_record(torch.nn.Linear(2, 2))['backbone'] is None

    def test_it_is_plain_data(self, tmp_path: Path) -> None:
        """Configs may name a norm by its class, and numbers that are none of Python's."""
        cfg = tiny_config(tmp_path)
        cfg.model.backbone.norm_cfg = dict(type=torch.nn.BatchNorm2d, eps=1e-4)
        model = TinyModel(cfg.model.backbone)
        save_checkpoint_file({'meta': {'mmsw': network_record(model)}}, tmp_path / 'file.pth')
        found = load_checkpoint_file(tmp_path / 'file.pth')['meta']['mmsw']['backbone']
        assert found['norm_cfg'] == {'type': 'BatchNorm2d', 'eps': 1e-4}
