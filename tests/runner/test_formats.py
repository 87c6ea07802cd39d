"""Every way from a file into a network looks at the format of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
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


def start(path: Path, folder: Path, part: str) -> None:
    """A training whose model or backbone starts from the file."""
    cfg = tiny_config(folder / 'new')
    owner = cfg.model if part == 'model' else cfg.model.backbone
    owner.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    build_runner(cfg).train()


def own_runner(path: Path, folder: Path) -> Runner:
    """mmengine's, with a hook of mmsw."""
    settings = tiny_config(folder / 'new', custom_hooks=[REPORT], load_from=str(path))
    return Runner.from_cfg(settings)


READERS: dict[str, Callable[[Path, Path], object]] = {
    'load_pretrained': lambda path, _: load_pretrained(tiny_net(), path),
    'load_release_checkpoint': lambda path, _: load_release_checkpoint(path),
    'init_model': lambda path, folder: init_model(tiny_config(folder), path),
    'resume': lambda path, folder: build_runner(tiny_config(folder, 4), resume=path).train(),
    'load_from': lambda path, folder: build_runner(
        tiny_config(folder, load_from=str(path))
    ).train(),
    'init_cfg of the backbone': lambda path, folder: start(path, folder, 'backbone'),
    'init_cfg of the model': lambda path, folder: start(path, folder, 'model'),
    'hook': lambda path, folder: own_runner(path, folder).train(),
    'convert': lambda path, folder: convert_checkpoint(path, folder / 'own.pth'),
    'convert, trusted': lambda path, folder: convert_checkpoint(path, folder / 'own.pth', True),
    'get_flops': lambda path, folder: count_complexity(tiny_config(folder), (32, 32), path),
    'analyze_sparsity': lambda path, _: analyze_sparsity(path),
    'analyze_sparsity with a config': lambda path, folder: analyze_sparsity(
        path, tiny_config(folder)
    ),
}


@pytest.mark.parametrize('reader', READERS)
def test_a_newer_format_is_refused_by_name(reader: str, trained: Path, tmp_path: Path) -> None:
    def renew(content: dict) -> None:
        content['meta']['mmsw'].update(format=FORMAT + 1, version='0.4.0')

    path = changed(trained, tmp_path / 'newer.pth', renew)
    with pytest.raises(CheckpointError) as caught:
        READERS[reader](path, tmp_path)
    who = 'the checkpoint' if reader == 'hook' else path
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

    READERS[reader](changed(trained, tmp_path / 'older.pth', age), tmp_path)


@pytest.mark.parametrize('record', [None, 2, {}, {'format': '2'}, {'format': 0}, {'format': True}])
def test_a_damaged_record_is_refused(record: object, tmp_path: Path) -> None:
    save_checkpoint_file({'meta': {'mmsw': record}, 'state_dict': {}}, tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match=r"bad\.pth is damaged: its meta\['mmsw'\] must be"):
        load_checkpoint_file(tmp_path / 'bad.pth')


class TestRecord:
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
