"""Files that are packed, out of reach or elsewhere: read as data alone, or refused by name."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend, backends, prefix_to_backends
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint as mmengine_load_checkpoint
from torch import nn

from mmsw.checkpoint import (
    CheckpointError,
    check_address,
    load_checkpoint_file,
    load_pretrained,
    only_data_is_read,
    read_checkpoint,
)


class TouchesFile:
    """Unpickling an instance makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def harmful(tmp_path: Path) -> Iterator[Path]:
    """A file that runs code if it is unpickled, which the test must not let happen."""
    witness, path = tmp_path / 'witness', tmp_path / 'harmful.pth'
    torch.save({'state_dict': {'weight': torch.zeros(1, 1)}, 'x': TouchesFile(witness)}, path)
    yield path
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists(), 'the file is not as harmful as the test believes'


class TestPackedFiles:
    """torch.save stores; a packed record may unpack to a thousand times its size."""

    @staticmethod
    def repack(path: Path, compression: int) -> Path:
        with zipfile.ZipFile(path) as archive:
            records = [(info.filename, archive.read(info)) for info in archive.infolist()]
        with zipfile.ZipFile(path, 'w', compression) as archive:
            for name, content in records:
                archive.writestr(name, content)
        return path

    @pytest.fixture
    def plain(self, tmp_path: Path) -> Path:
        torch.save({'weight': torch.zeros(1 << 20)}, tmp_path / 'file.pth')
        return tmp_path / 'file.pth'

    def test_it_is_refused_before_anything_is_unpacked(self, plain, monkeypatch) -> None:
        packed = self.repack(plain, zipfile.ZIP_DEFLATED)
        assert packed.stat().st_size < 20_000
        torch.load(packed, weights_only=True)  # nothing else would have stopped it
        monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('it was read'))
        message = r'file\.pth is not written by torch\.save: its records are compressed.* it again'
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint_file(packed)
        assert 'unpack' not in str(caught.value)

    @pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
    def test_archives_of_numpy_are_no_files_of_torch(self, tmp_path, save) -> None:
        save(tmp_path / 'file.npz', weight=np.zeros(1 << 16))
        message = r'file\.npz is not written by torch\.save: it has no data\.pkl.* Name a'
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint_file(tmp_path / 'file.npz')

    def test_records_that_share_their_bytes_are_refused(self, plain) -> None:
        """A directory may list the same bytes a thousand times."""
        with zipfile.ZipFile(plain, 'a') as archive:
            largest = max(archive.infolist(), key=lambda record: record.file_size)
            archive.filelist.extend([largest] * 9)
            archive._didModify = True
        message = r'not written by torch\.save: its \d+ bytes claim to hold 4\d{7} bytes of records'
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint_file(plain)

    def test_stored_records_are_read(self, plain) -> None:
        stored = self.repack(plain, zipfile.ZIP_STORED)
        assert load_checkpoint_file(stored)['weight'].shape == (1 << 20,)

    def test_trusted_files_are_read(self, plain) -> None:
        packed = self.repack(plain, zipfile.ZIP_DEFLATED)
        assert load_checkpoint_file(packed, trust=True)['weight'].shape == (1 << 20,)


class TestTroublesOfTheMachine:
    """They are not called a damage of the file."""

    @pytest.mark.parametrize(
        ('error', 'words'),
        [
            (PermissionError(13, 'Permission denied'), 'Permission denied'),
            (OSError(5, 'Input/output error'), 'Input/output error'),
            (OSError(28, 'No space left'), 'No space left'),
            (MemoryError(), 'not enough memory'),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 'not enough mem'),
        ],
    )
    def test_they_keep_their_own_words(self, tmp_path, monkeypatch, error, words) -> None:
        torch.save({}, tmp_path / 'file.pth')

        def fail(*_, **__) -> None:
            raise error

        monkeypatch.setattr(torch, 'load', fail)
        with pytest.raises(CheckpointError, match=words) as caught:
            load_checkpoint_file(tmp_path / 'file.pth')
        assert f'checkpoint file {tmp_path / "file.pth"}' in str(caught.value)
        assert 'truncated' not in str(caught.value)
        assert '\n' not in str(caught.value)

    def test_folder_that_may_not_be_entered(self, tmp_path, monkeypatch) -> None:
        def refuse(*_, **__) -> None:
            raise PermissionError(13, 'Permission denied')

        monkeypatch.setattr(Path, 'stat', refuse)
        with pytest.raises(CheckpointError, match='Permission denied'):
            load_checkpoint_file(tmp_path / 'file.pth')


def test_statistics_of_histories_stay_as_they_are(tmp_path: Path) -> None:
    history = HistoryBuffer([3.0, 1.0, 2.0], [1, 1, 1])
    kept = dict(HistoryBuffer._statistics_methods)
    HistoryBuffer._statistics_methods['mean'] = HistoryBuffer.min
    try:
        torch.save({'history': history}, tmp_path / 'file.pth')
    finally:
        HistoryBuffer._statistics_methods.update(kept)
    found = load_checkpoint_file(tmp_path / 'file.pth')['history']
    assert HistoryBuffer._statistics_methods == kept
    assert found.statistics('mean', 3) == history.statistics('mean', 3) == 2.0
    HistoryBuffer._statistics_methods.clear()  # as in a process that has had no history yet
    found = load_checkpoint_file(tmp_path / 'file.pth')['history']
    assert found.statistics('mean', 3) == 2.0
    assert HistoryBuffer._statistics_methods == kept


class TestFilesThatOthersRead:
    """mmengine and torchvision call torch.load; older versions of both let it run anything."""

    @pytest.mark.parametrize('unsafe', [None, False])
    def test_only_data_is_read(self, harmful, monkeypatch, unsafe) -> None:
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
        refused = pytest.raises(CheckpointError, match=r'part of the model .* plain data')
        with refused, only_data_is_read():
            torch.load(harmful, weights_only=unsafe)
        assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
        assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ

    def test_ordinary_files_are_read(self, tmp_path) -> None:
        saved, net = nn.Linear(1, 1), nn.Linear(1, 1)
        torch.save({'state_dict': saved.state_dict()}, tmp_path / 'file.pth')
        with only_data_is_read():
            mmengine_load_checkpoint(net, str(tmp_path / 'file.pth'))
        assert torch.equal(net.weight, saved.weight)


class TapeBackend(LocalBackend):
    """Hands out copies of the files of a folder; mmengine keeps one instance for ever."""

    folder: Path

    @contextmanager
    def get_local_path(self, filepath: str) -> Iterator[str]:
        copy = self.folder / 'copy'
        shutil.copy(self.folder / filepath.split('://')[1], copy)
        try:
            yield str(copy)
        finally:
            copy.unlink()


class TestAddresses:
    """Every address is read as a local file is."""

    @pytest.fixture(params=['file', 'tape', 'cluster:tape'])
    def address(self, request, tmp_path) -> Iterator[Callable[[Path], str]]:
        if request.param == 'file':
            yield lambda path: path.as_uri()
            return
        TapeBackend.folder = tmp_path
        register_backend('tape', TapeBackend, prefixes='tape')
        yield lambda path: f'{request.param}://{path.name}'
        del backends['tape'], prefix_to_backends['tape']

    def test_data_are_read(self, address, tmp_path) -> None:
        torch.save({'epoch': 3}, tmp_path / 'a file.pth')
        assert read_checkpoint(address(tmp_path / 'a file.pth')) == {'epoch': 3}
        assert [path.name for path in tmp_path.iterdir()] == ['a file.pth']

    def test_kinds_are_read_in_capitals_too(self, address, tmp_path) -> None:
        torch.save({'epoch': 3}, tmp_path / 'File.pth')
        before, rest = address(tmp_path / 'File.pth').split('://')
        capitals = before.replace('tape', 'TAPE').replace('file', 'FILE')
        check_address(f'{capitals}://{rest}')
        assert read_checkpoint(f'{capitals}://{rest}') == {'epoch': 3}

    def test_code_is_not_run(self, address, harmful) -> None:
        name = address(harmful)
        with pytest.raises(CheckpointError, match='asks to load more than tensors') as caught:
            read_checkpoint(name)
        assert name in str(caught.value), 'the user knows the address, not the copy'
        assert 'download it' in str(caught.value)

    def test_network_starts_from_it(self, address, build_net, published_path, tmp_path) -> None:
        shutil.copy(published_path, tmp_path / 'file.pth')
        net, expected = build_net(), build_net(published_path)
        load_pretrained(net, address(tmp_path / 'file.pth'))
        own, wanted = net.state_dict(), expected.state_dict()
        assert all(torch.equal(own[key], wanted[key]) for key in wanted if '.norm' not in key)

    def test_it_cannot_be_fetched(self, address, tmp_path) -> None:
        with pytest.raises(
            CheckpointError, match=r'absent\.pth (cannot be fetched|does not exist)'
        ):
            read_checkpoint(address(tmp_path / 'absent.pth'))

    @pytest.mark.parametrize(
        'name',
        [
            'torchvision://resnet50',
            'openmmlab://resnet50',
            'open-mmlab://resnet50',
            'mmcls://resnet50',
            'modelzoo://resnet50',
            'pavi://some/file',
            'ftp://host/file.pth',
        ],
    )
    def test_other_kinds_are_refused_by_name(self, name, build_net, monkeypatch) -> None:
        monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('something was read'))
        for read in (check_address, read_checkpoint, lambda it: load_pretrained(build_net(), it)):
            with pytest.raises(CheckpointError) as caught:
                read(name)
            assert f'checkpoint {name} cannot be fetched' in str(caught.value)
            assert 'file://, http://, https://, ' in str(caught.value)
            assert 'Download the file' in str(caught.value)

    def test_missing_client_of_a_backend_is_told(self) -> None:
        with pytest.raises(
            CheckpointError, match=r's3://bucket/a\.pth cannot be fetched: .*petrel'
        ):
            read_checkpoint('s3://bucket/a.pth')
