"""tools/convert_checkpoint.py: what it writes, what it reports, what it refuses."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmsw.apis.convert import convert_checkpoint
from mmsw.checkpoint import CheckpointError, load_checkpoint_file
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import report

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
    settings = written['meta']['backbone']
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
    assert once['meta']['backbone'] == twice['meta']['backbone']
    assert once['state_dict'].keys() == twice['state_dict'].keys()
    for key, tensor in once['state_dict'].items():
        assert torch.equal(tensor, twice['state_dict'][key])


def test_refuses_source_as_destination_and_folders(published, tmp_path) -> None:
    with pytest.raises(CheckpointError, match='is the source itself'):
        convert_checkpoint(published, published)
    with pytest.raises(CheckpointError, match='is a folder'):
        convert_checkpoint(published, tmp_path)


def test_command_line(data_dir, tmp_path) -> None:
    raw = load_checkpoint_file(data_dir / 'backbone_v2_mini_checkpoint.pth')
    raw['args'] = argparse.Namespace(kernel_size=raw['args'].kernel_size, extra=NeedsCode())
    torch.save(raw, tmp_path / 'raw.pth')

    def run(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(TOOL), *map(str, arguments)],
            capture_output=True,
            text=True,
        )

    refused = run(tmp_path / 'raw.pth', tmp_path / 'own.pth')
    assert refused.returncode == 2
    assert '--trust' in refused.stderr
    assert 'Traceback' not in refused.stderr
    assert not (tmp_path / 'own.pth').exists()

    trusted = run(tmp_path / 'raw.pth', tmp_path / 'own.pth', '--trust')
    assert trusted.returncode == 0, trusted.stderr
    assert 'in all    2013/2856 filters (70.48%)' in trusted.stdout
    assert load_checkpoint_file(tmp_path / 'own.pth')['state_dict']

    missing = run(tmp_path / 'nothing.pth', tmp_path / 'own2.pth')
    assert missing.returncode == 2
    assert 'nothing.pth does not exist' in missing.stderr
    assert 'Traceback' not in missing.stderr
