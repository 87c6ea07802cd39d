"""tools/convert_checkpoint.py: what it writes, what it reports, what it refuses."""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import pytest
import torch

from mmsw.apis.convert import convert_checkpoint
from mmsw.checkpoint import CheckpointError, load_checkpoint_file, network_record
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import attach_masks, masks, report, set_masks

TOOL = Path(__file__).resolve().parents[1] / 'tools' / 'convert_checkpoint.py'


class NeedsCode:
    """Unpickling this calls ``pathlib.Path``: harmless, but more than data."""

    def __reduce__(self):
        return Path, ('anything',)


@pytest.fixture(params=['v1', 'v2'])
def published(request, data_dir) -> Path:
    return data_dir / f'backbone_{request.param}_mini_checkpoint.pth'


def test_written_file_depends_on_no_generator_and_gives_the_same_features(
    published, tmp_path
) -> None:
    converted = convert_checkpoint(published, tmp_path / 'own.pth')
    written = load_checkpoint_file(tmp_path / 'own.pth')
    settings = written['meta']['mmsw']['backbone']
    direct = ShiftWiseNet(**settings, init_cfg=dict(type='Pretrained', checkpoint=str(published)))
    again = ShiftWiseNet(
        **settings, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'own.pth'))
    )
    direct.init_weights()
    again.init_weights()
    image = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(again.eval()(image), direct.eval()(image), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert report(again) == report(direct) == converted.sparsity
    patterns = [key for key in written['state_dict'] if key.endswith('pattern.shift_hv')]
    assert len(patterns) == 5  # one per block
    assert written['state_dict']['head.weight'].shape[0] == 1000


def test_report(published, tmp_path) -> None:
    converted = convert_checkpoint(published, tmp_path / 'own.pth')
    source = load_checkpoint_file(published)['model']
    masks = 5 * 2  # five blocks, two paths: the zeros of the file, counted as used
    assert len(converted.used) == len(source) + masks
    assert converted.unused == []
    assert converted.missing == [
        f'norm{stage}.{name}' for stage in range(4) for name in ('weight', 'bias')
    ]
    assert 'keys unused: 0 none' in str(converted)
    assert 'stage 3' in str(converted)


def test_converting_twice_changes_nothing(published, tmp_path) -> None:
    convert_checkpoint(published, tmp_path / 'once.pth')
    convert_checkpoint(tmp_path / 'once.pth', tmp_path / 'twice.pth')
    once, twice = (load_checkpoint_file(tmp_path / f'{n}.pth') for n in ('once', 'twice'))
    assert once['meta']['mmsw']['backbone'] == twice['meta']['mmsw']['backbone']
    assert once['state_dict'].keys() == twice['state_dict'].keys()
    for key, tensor in once['state_dict'].items():
        assert torch.equal(tensor, twice['state_dict'][key])


MINI = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])
KERNELS = [31, 14, 7, 5]


def own_file(tmp_path: Path, **kwargs) -> Path:
    """What a training run of a whole model leaves; its shift patterns are all that it tells."""
    net = ShiftWiseNet(MINI, big_kernels=KERNELS, **kwargs)
    state = {f'backbone.{key}': tensor for key, tensor in net.state_dict().items()}
    torch.save({'meta': {'iter': 3}, 'state_dict': state}, tmp_path / 'run.pth')
    return tmp_path / 'run.pth'


def settings_of(path: Path) -> dict:
    return load_checkpoint_file(path)['meta']['mmsw']['backbone']


@pytest.mark.parametrize('form', ['namespace', 'dict'])
def test_an_argument_wins_over_the_records_of_the_file(form, data_dir, tmp_path) -> None:
    raw = load_checkpoint_file(data_dir / 'backbone_v2_mini_checkpoint.pth')
    told = dict(kernel_size=[50, 49, 48, 14, 3], N_rep=3, ghost_ratio=0.24)
    raw['args'] = argparse.Namespace(**told) if form == 'namespace' else told
    torch.save(raw, tmp_path / 'raw.pth')
    convert_checkpoint(tmp_path / 'raw.pth', tmp_path / 'told.pth')
    found = settings_of(tmp_path / 'told.pth')
    assert found['big_kernels'] == [50, 49, 48, 14]
    assert (found['num_reps'], found['ghost_ratio']) == (3, 0.24)
    convert_checkpoint(
        tmp_path / 'raw.pth',
        tmp_path / 'asked.pth',
        big_kernels=(51, 49, 47, 13),
        num_reps=2,
        ghost_ratio=0.23,
    )
    found = settings_of(tmp_path / 'asked.pth')
    assert found['big_kernels'] == [51, 49, 47, 13]
    assert (found['num_reps'], found['ghost_ratio']) == (2, 0.23)
    again = ShiftWiseNet(
        **found, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'asked.pth'))
    )
    again.init_weights()
    assert again.stages[0][0].shift_wise.pattern.num_reps == 2


@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=None, N_rep=None),
        dict(kernel_size=51, N_rep=None),
        dict(kernel_size=[], ghost_ratio=None),
        {},
    ],
)
def test_records_that_tell_nothing_leave_the_published_settings(
    arguments, data_dir, tmp_path
) -> None:
    raw = load_checkpoint_file(data_dir / 'backbone_v2_mini_checkpoint.pth')
    raw['args'] = argparse.Namespace(**arguments)
    torch.save(raw, tmp_path / 'raw.pth')
    convert_checkpoint(tmp_path / 'raw.pth', tmp_path / 'own.pth')
    found = settings_of(tmp_path / 'own.pth')
    assert found['big_kernels'] == [51, 49, 47, 13]
    assert (found['num_reps'], found['ghost_ratio']) == (4, 0.23)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(kernel_size=['a', 49, 47, 13, 3]), "big_kernels=['a', 49, 47, 13], ghost"),
        (dict(kernel_size=[51, 49, 3]), 'big_kernels needs one focus length per stage (4), got'),
        (dict(N_rep='four'), "num_reps must be a positive integer, got 'four'"),
        (dict(ghost_ratio='some'), "ghost_ratio='some', num_reps=4"),
    ],
)
def test_records_that_make_no_sense_are_refused(arguments, message, data_dir, tmp_path) -> None:
    raw = load_checkpoint_file(data_dir / 'backbone_v2_mini_checkpoint.pth')
    raw['args'] = argparse.Namespace(**arguments)
    torch.save(raw, tmp_path / 'raw.pth')
    with pytest.raises(CheckpointError, match='no network can be built with') as caught:
        convert_checkpoint(tmp_path / 'raw.pth', tmp_path / 'own.pth')
    assert message in str(caught.value)
    assert '--big-kernels' in str(caught.value)
    assert not (tmp_path / 'own.pth').exists()


def test_an_own_file_with_other_settings_can_be_converted_again_and_again(tmp_path) -> None:
    source = own_file(tmp_path, num_reps=2, num_paths=1, in_channels=4)
    for name in ('once.pth', 'twice.pth'):  # from the patterns, then from the meta data
        convert_checkpoint(
            source, tmp_path / name, big_kernels=KERNELS if name == 'once.pth' else None
        )
        source = tmp_path / name
        found = settings_of(source)
        assert found['big_kernels'] == KERNELS
        assert found['num_reps'] == 2
        assert found['in_channels'] == 4
    once, twice = (load_checkpoint_file(tmp_path / name) for name in ('once.pth', 'twice.pth'))
    assert once['meta']['mmsw']['backbone'] == twice['meta']['mmsw']['backbone']
    for key, tensor in once['state_dict'].items():
        assert torch.equal(tensor, twice['state_dict'][key])


@pytest.mark.parametrize(
    'settings',
    [
        dict(norm_cfg=dict(type='BN', eps=0.05)),
        dict(norm_cfg=dict(type=torch.nn.BatchNorm2d, momentum=0.3)),
        dict(layer_scale_init_value=1.0),
        dict(layer_scale_init_value=0.0),
        dict(output_norm=False),
        dict(out_indices=[1, 3]),
        dict(out_indices=[0, 1]),
    ],
    ids=str,
)
def test_all_that_the_record_tells_is_kept(settings: dict, tmp_path: Path) -> None:
    net = ShiftWiseNet(MINI, big_kernels=KERNELS, **settings).eval()
    record = network_record(net)
    torch.save({'meta': {'mmsw': record}, 'state_dict': net.state_dict()}, tmp_path / 'run.pth')
    convert_checkpoint(tmp_path / 'run.pth', tmp_path / 'own.pth')
    found = settings_of(tmp_path / 'own.pth')
    assert found == record['backbone']
    state = load_checkpoint_file(tmp_path / 'own.pth')['state_dict']
    assert state.keys() == net.state_dict().keys()


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_a_file_without_a_record_tells_whether_there_is_a_layer_scale(version, tmp_path) -> None:
    convert_checkpoint(
        own_file(tmp_path, version=version, layer_scale_init_value=0), tmp_path / 'own.pth'
    )
    assert settings_of(tmp_path / 'own.pth')['layer_scale_init_value'] == 0


def test_the_tensors_win_over_the_record(tmp_path: Path) -> None:
    net = ShiftWiseNet(MINI, big_kernels=KERNELS)
    record, right = network_record(net), dict(net.settings)
    record['backbone'].update(arch=dict(depths=3, dims=None), out_indices=[[0], 7], version='v1')
    torch.save({'meta': {'mmsw': record}, 'state_dict': net.state_dict()}, tmp_path / 'run.pth')
    convert_checkpoint(tmp_path / 'run.pth', tmp_path / 'own.pth')
    assert settings_of(tmp_path / 'own.pth') == right


def test_a_norm_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    net = ShiftWiseNet(MINI, big_kernels=KERNELS)
    record = network_record(net)
    record['backbone']['norm_cfg'] = dict(type='SomeNorm')
    torch.save({'meta': {'mmsw': record}, 'state_dict': net.state_dict()}, tmp_path / 'run.pth')
    with pytest.raises(CheckpointError, match="record names the norm 'SomeNorm', which no"):
        convert_checkpoint(tmp_path / 'run.pth', tmp_path / 'own.pth')


def test_stored_patterns_tell_what_nothing_else_does(tmp_path) -> None:
    convert_checkpoint(own_file(tmp_path, num_reps=3), tmp_path / 'own.pth')
    found = settings_of(tmp_path / 'own.pth')
    assert found['big_kernels'] == KERNELS
    assert found['num_reps'] == 3
    old = load_checkpoint_file(tmp_path / 'run.pth')
    state = old['state_dict']
    old['state_dict'] = {k: t for k, t in state.items() if not k.endswith('kernel_sizes')}
    torch.save(old, tmp_path / 'run.pth')
    convert_checkpoint(tmp_path / 'run.pth', tmp_path / 'own.pth')
    found = settings_of(tmp_path / 'own.pth')
    assert found['big_kernels'] == [31, 15, 7, 5]  # without them a pattern does not tell 14 from 15
    assert found['num_reps'] == 3


def test_a_file_without_its_last_stage(tmp_path) -> None:
    converted = convert_checkpoint(
        own_file(tmp_path, out_indices=(0, 1, 2)), tmp_path / 'own.pth', big_kernels=KERNELS
    )
    assert converted.shape.depths == (1, 1, 2)
    assert set(converted.sparsity.stages) == {0, 1, 2}
    net = ShiftWiseNet(
        **settings_of(tmp_path / 'own.pth'),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'own.pth')),
    )
    net.init_weights()
    own = load_checkpoint_file(tmp_path / 'run.pth')['state_dict']
    assert all(torch.equal(t, own[f'backbone.{k}']) for k, t in net.state_dict().items())
    convert_checkpoint(tmp_path / 'own.pth', tmp_path / 'twice.pth')
    assert settings_of(tmp_path / 'twice.pth') == settings_of(tmp_path / 'own.pth')


def test_one_of_several_networks(published, tmp_path) -> None:
    raw = load_checkpoint_file(published)
    model = raw['model']
    raw['model'] = {f'{who}.{k}': t for who in ('student', 'teacher') for k, t in model.items()}
    torch.save(raw, tmp_path / 'raw.pth')
    with pytest.raises(CheckpointError, match='several shift-wise networks'):
        convert_checkpoint(tmp_path / 'raw.pth', tmp_path / 'own.pth')
    convert_checkpoint(tmp_path / 'raw.pth', tmp_path / 'own.pth', prefix='teacher')
    convert_checkpoint(published, tmp_path / 'direct.pth')
    one, other = (load_checkpoint_file(tmp_path / n) for n in ('own.pth', 'direct.pth'))
    assert one['meta']['mmsw']['backbone'] == other['meta']['mmsw']['backbone']
    assert all(torch.equal(t, other['state_dict'][k]) for k, t in one['state_dict'].items())


def test_masks_of_ordinary_layers_and_zeros_of_a_dynamic_run(tmp_path) -> None:
    """What is written reads back as it was reported: it has no state of a run to go on with."""
    net = ShiftWiseNet(MINI, big_kernels=KERNELS)
    names = attach_masks(net, r'pointwise_conv1\.weight')
    set_masks(net, {n: torch.rand(net.get_submodule(n).weight.shape) < 0.5 for n in names})
    state = net.state_dict()
    grown = 'stages.0.0.shift_wise.paths.0.weight'
    state[grown] = state[grown].clone()
    state[grown][:5] = 0
    torch.save({'state_dict': state, 'dynamic_sparsity': {}}, tmp_path / 'run.pth')
    converted = convert_checkpoint(tmp_path / 'run.pth', tmp_path / 'own.pth', big_kernels=KERNELS)
    again = ShiftWiseNet(
        **settings_of(tmp_path / 'own.pth'),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'own.pth')),
    )
    again.init_weights()
    assert report(again) == converted.sparsity
    found = masks(again)
    assert not found[grown.removesuffix('.weight')][:5].any()
    assert all(torch.equal(found[name], net.get_submodule(name).mask) for name in names)


def test_refuses_source_as_destination_and_folders(published, tmp_path) -> None:
    with pytest.raises(CheckpointError, match='is the source itself'):
        convert_checkpoint(published, published)
    with pytest.raises(CheckpointError, match='is a folder'):
        convert_checkpoint(published, tmp_path)
    with pytest.raises(CheckpointError, match=r'raw\.pth is a file.*own\.pth needs a folder there'):
        convert_checkpoint(published, copy_of(published, tmp_path / 'raw.pth') / 'in' / 'own.pth')


def copy_of(path: Path, destination: Path) -> Path:
    destination.write_bytes(path.read_bytes())
    return destination


@pytest.mark.parametrize('error', [PermissionError(13, 'not allowed'), OSError(28, 'No space')])
def test_what_cannot_be_written_is_told(published, tmp_path, monkeypatch, error) -> None:
    def refuse(*_) -> None:
        raise error

    monkeypatch.setattr(torch, 'save', refuse)
    with pytest.raises(CheckpointError, match=rf'own\.pth cannot be written: .*{error.strerror}'):
        convert_checkpoint(published, tmp_path / 'own.pth')
    assert not (tmp_path / 'own.pth').exists()


def test_addresses(published, tmp_path) -> None:
    """They are read as every other checkpoint is, but nothing in them is run."""
    convert_checkpoint(published, tmp_path / 'own.pth')
    convert_checkpoint(published.absolute().as_uri(), tmp_path / 'fetched.pth')
    one, other = (load_checkpoint_file(tmp_path / n) for n in ('own.pth', 'fetched.pth'))
    assert one['meta'] == other['meta']
    assert all(torch.equal(t, other['state_dict'][k]) for k, t in one['state_dict'].items())
    for trust in (False, True):
        with pytest.raises(CheckpointError, match='checkpoint torchvision://x cannot be fetched'):
            convert_checkpoint('torchvision://x', tmp_path / 'none.pth', trust)
    with pytest.raises(CheckpointError, match=r'only a local file can be trusted.*Download it'):
        convert_checkpoint(published.absolute().as_uri(), tmp_path / 'none.pth', trust=True)
    assert not (tmp_path / 'none.pth').exists()


def test_command_line(data_dir, tmp_path, monkeypatch, capsys) -> None:
    raw = load_checkpoint_file(data_dir / 'backbone_v2_mini_checkpoint.pth')
    raw['args'] = argparse.Namespace(kernel_size=raw['args'].kernel_size, extra=NeedsCode())
    torch.save(raw, tmp_path / 'raw.pth')
    monkeypatch.syspath_prepend(TOOL.parent)
    main = runpy.run_path(str(TOOL))['main']

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    code, _, error = run(tmp_path / 'raw.pth', tmp_path / 'own.pth')
    assert code == 2
    assert '--trust' in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'own.pth').exists()

    code, output, error = run(tmp_path / 'raw.pth', tmp_path / 'own.pth', '--trust')
    assert code == 0, error
    assert 'in all    2013/2856 filters (70.48%)' in output
    assert load_checkpoint_file(tmp_path / 'own.pth')['state_dict']

    code, _, error = run(tmp_path / 'nothing.pth', tmp_path / 'own2.pth')
    assert code == 2
    assert 'nothing.pth does not exist' in error
    assert error.count('\n') == 1

    code, _, error = run(tmp_path / 'own.pth', tmp_path / 'raw.pth' / 'x.pth')
    assert code == 2
    assert error.startswith('error: ')
    assert error.count('\n') == 1
