"""load_checkpoint_file and save_checkpoint_file: safe, whole, and clear about what is wrong."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import load_checkpoint as mmengine_load_checkpoint
from mmengine.runner import save_checkpoint as mmengine_save_checkpoint
from torch import nn

from mmsw.checkpoint import (
    CheckpointError,
    allow_checkpoint_classes,
    load_checkpoint_file,
    save_checkpoint_file,
)


class RunsCommand:
    """Unpickling an instance runs a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


class Unknown:
    """A class that is no data container."""

    def __init__(self) -> None:
        self.value = 1


def pickle_of_getattr(owner: str, name: str) -> bytes:
    """Protocol 2 pickle of ``{'model': getattr(owner, name)}``, as Python itself writes it."""
    module, _, attribute = owner.rpartition('.')
    stream = io.BytesIO()
    stream.write(b'\x80\x02}X\x05\x00\x00\x00modelc__builtin__\ngetattr\n')
    stream.write(f'c{module}\n{attribute}\n'.encode())
    stream.write(b'X' + len(name).to_bytes(4, 'little') + name.encode() + b'\x86Rs.')
    return stream.getvalue()


def write_zip_checkpoint(path: Path, data_pkl: bytes) -> Path:
    """A file as torch.save writes it, without tensors, around any pickle."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', data_pkl)
        archive.writestr('archive/version', '3\n')
    return path


def rewrite_pickle(path: Path, old: bytes, new: bytes) -> int:
    """Replace bytes in the pickle inside a torch file; returns how often they were found."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    count = 0
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members:
            if name.endswith('data.pkl'):
                count = content.count(old)
                content = content.replace(old, new)
            archive.writestr(name, content)
    return count


def test_round_trip(tmp_path) -> None:
    saved = {
        'model': {'weight': torch.randn(3)},
        'args': argparse.Namespace(kernel_size=[51, 49, 47, 13, 3]),
        'epoch': 3,
        'scaler': {'scale': 1.0},
        'values': [np.float64(2.5), np.arange(3), np.float32(1), np.array([True])],
    }
    save_checkpoint_file(saved, tmp_path / 'new' / 'folder' / 'file.pth')
    found = load_checkpoint_file(tmp_path / 'new' / 'folder' / 'file.pth')
    assert torch.equal(found['model']['weight'], saved['model']['weight'])
    assert found['args'] == saved['args']
    assert (found['epoch'], found['scaler']) == (3, {'scale': 1.0})
    for value, expected in zip(found['values'], saved['values'], strict=True):
        assert np.array_equal(value, expected)
        assert value.dtype == expected.dtype


class TestUnsafe:
    """Files that ask for more than data are refused before anything of them runs."""

    @pytest.mark.parametrize('zipped', [True, False])
    def test_a_command_is_refused_and_does_not_run(self, tmp_path, zipped) -> None:
        witness, path = tmp_path / 'witness', tmp_path / 'evil.pth'
        content = {'model': {'weight': torch.zeros(2)}, 'extra': RunsCommand(f'touch {witness}')}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint_file(path)
        assert not witness.exists()
        message = str(caught.value)
        assert message.startswith(f'checkpoint file {path} asks to load more than tensors')
        assert f'{os.system.__module__}.system' in message
        assert f'tools/convert_checkpoint.py {path} DST.pth --trust' in message

        load_checkpoint_file(path, trust=True)
        assert witness.exists(), 'the file is not as dangerous as the test believes'

    def test_an_unknown_class_is_named(self, tmp_path) -> None:
        torch.save({'model': Unknown()}, tmp_path / 'file.pth')
        with pytest.raises(CheckpointError, match=r'GLOBAL .*test_checkpoint_files\.Unknown'):
            load_checkpoint_file(tmp_path / 'file.pth')
        assert load_checkpoint_file(tmp_path / 'file.pth', trust=True)['model'].value == 1

    def test_a_whole_pickled_module_is_refused(self, tmp_path) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / 'file.pth')
        with pytest.raises(CheckpointError, match=r'asks to load more than tensors.*--trust'):
            load_checkpoint_file(tmp_path / 'file.pth')

    @pytest.mark.parametrize(
        ('owner', 'name'),
        [
            ('os.path', 'exists'),
            ('torch.serialization', 'load'),
            ('torch.Tensor', '__reduce__'),
            ('argparse.Namespace', '__class__'),
            ('mmengine.logging.history_buffer.HistoryBuffer', '__init__'),
            ('mmengine.logging.history_buffer.HistoryBuffer', 'register_statistics'),
        ],
    )
    def test_getattr_is_no_way_out(self, tmp_path, owner, name) -> None:
        data = pickle_of_getattr(owner, name)
        assert pickle.loads(data)['model'] is not None  # it is what an attacker would write
        path = write_zip_checkpoint(tmp_path / 'file.pth', data)
        with pytest.raises(CheckpointError, match='asks to load more than tensors'):
            load_checkpoint_file(path)

    def test_trusted_file_of_a_missing_package(self, tmp_path) -> None:
        data = pickle_of_getattr('package_that_is_nowhere.Thing', 'x')
        path = write_zip_checkpoint(tmp_path / 'file.pth', data)
        with pytest.raises(CheckpointError, match=r'not installed here.*package_that_is_nowhere'):
            load_checkpoint_file(path, trust=True)


class TestMmengineFiles:
    """mmengine's own checkpoints hold log histories: numpy arrays and pickled getattr calls."""

    @pytest.fixture
    def saved(self, tmp_path) -> Path:
        hub = MessageHub.get_instance(str(tmp_path))
        for value in (3.0, 1.0, 2.0):
            hub.update_scalar('train/loss', value)
        hub.update_info('iter', 3)
        model = nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        checkpoint = {
            'meta': dict(epoch=1, iter=3, seed=np.int64(7), time=np.float64(0.5)),
            'state_dict': model.state_dict(),
            'message_hub': hub.state_dict(),
            'optimizer': optimizer.state_dict(),
        }
        mmengine_save_checkpoint(checkpoint, str(tmp_path / 'iter_3.pth'))
        return tmp_path / 'iter_3.pth'

    @staticmethod
    def assert_complete(checkpoint: dict) -> None:
        history = checkpoint['message_hub']['log_scalars']['train/loss']
        assert isinstance(history, HistoryBuffer)
        assert (history.mean(), history.min(), history.current()) == (2.0, 1.0, 2.0)
        assert history.statistics('max') == 3.0
        assert np.array_equal(history.data[0], [3.0, 1.0, 2.0])
        assert checkpoint['meta']['seed'] == 7
        assert set(checkpoint['state_dict']) == {'weight', 'bias'}

    def test_pickle_asks_for_getattr(self, saved) -> None:
        with zipfile.ZipFile(saved) as archive:
            data = next(archive.read(n) for n in archive.namelist() if n.endswith('data.pkl'))
        assert b'getattr\n' in data, 'the allow-list for getattr is not needed any more'

    def test_they_load(self, saved) -> None:
        self.assert_complete(load_checkpoint_file(saved))

    def test_mmengine_itself_loads_them(self, saved) -> None:
        self.assert_complete(mmengine_load_checkpoint(nn.Linear(2, 2), str(saved)))

    def test_files_written_with_the_other_numpy_load(self, saved) -> None:
        modules = [b'cnumpy.core.multiarray\n', b'cnumpy._core.multiarray\n']
        if int(np.__version__.split('.')[0]) >= 2:
            modules.reverse()
        assert rewrite_pickle(saved, *modules) > 0
        self.assert_complete(load_checkpoint_file(saved))


def test_the_allow_list_is_short_and_repeating_it_adds_nothing() -> None:
    allow_checkpoint_classes()
    known = torch.serialization.get_safe_globals()
    assert not [entry for entry in known if isinstance(entry, tuple)], 'torch 2.4 knows no tuples'
    names = {f'{entry.__module__}.{entry.__name__}' for entry in known}
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        assert {f'{module}._reconstruct', f'{module}.scalar'} <= names
    allow_checkpoint_classes()
    assert set(torch.serialization.get_safe_globals()) == set(known)


class TestUnreadable:
    """What is no checkpoint gives one error that says so and never recommends --trust."""

    @staticmethod
    def refused(path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint_file(path)
        assert '--trust' not in str(caught.value)
        assert str(path) in str(caught.value)
        return str(caught.value)

    def test_missing_file(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        message = self.refused(Path('weights/absent.pth'))
        assert f'does not exist (working folder: {tmp_path})' in message
        assert 'github.com/lidc54/shift-wiseConv' in message  # where the published one comes from
        assert 'by hand' in message
        assert '--from-scratch' in message  # how to train without

    def test_folder(self, tmp_path) -> None:
        assert 'is a folder' in self.refused(tmp_path)

    @pytest.mark.parametrize('content', [b'', b'P', b'PK', b'PK\x03\x04', b'\x80\x02', b'\x80'])
    def test_first_bytes_only(self, tmp_path, content) -> None:
        (tmp_path / 'file.pth').write_bytes(content)
        assert f'({len(content)} bytes) cannot be read' in self.refused(tmp_path / 'file.pth')

    @pytest.mark.parametrize(
        'text', ['hello world', '<!DOCTYPE html><html>quota exceeded</html>', '{"a": 1}', '\n\n']
    )
    def test_text(self, tmp_path, text) -> None:
        (tmp_path / 'file.pth').write_text(text)
        message = self.refused(tmp_path / 'file.pth')
        assert 'truncated, or no PyTorch file. Download or copy it again' in message

    @pytest.mark.parametrize('part', [0.0001, 0.01, 0.3, 0.9, 0.9999])
    def test_truncated(self, tmp_path, published_path, part) -> None:
        whole = published_path.read_bytes()
        (tmp_path / 'file.pth').write_bytes(whole[: int(part * len(whole))])
        assert 'truncated' in self.refused(tmp_path / 'file.pth')

    @pytest.mark.parametrize('part', [0.0001, 0.007, 0.02, 0.3, 0.9, 0.9999])
    def test_truncated_file_that_is_trusted(self, tmp_path, data_dir, part) -> None:
        whole = (data_dir / 'backbone_v2_mini_checkpoint.pth').read_bytes()
        (tmp_path / 'file.pth').write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(CheckpointError, match=r'it is truncated.* Download or copy it again'):
            load_checkpoint_file(tmp_path / 'file.pth', trust=True)

    def test_truncated_file_of_the_old_format(self, tmp_path, published) -> None:
        path = tmp_path / 'file.pth'
        torch.save(published, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        load_checkpoint_file(path)
        for cut in [*range(1, 2000, 97), *range(5000, len(whole), len(whole) // 40)]:
            path.write_bytes(whole[:cut])
            with pytest.raises(CheckpointError):
                load_checkpoint_file(path)

    def test_damaged_bytes_never_escape_as_another_error(self, tmp_path, published) -> None:
        path = tmp_path / 'file.pth'
        torch.save(published, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        draw = np.random.RandomState(0)
        refused = 0
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[draw.randint(20000)] ^= 1 << draw.randint(8)
            path.write_bytes(damaged)
            try:
                load_checkpoint_file(path)
            except CheckpointError:
                refused += 1
        assert refused > 10


class TestSaving:
    """A file of the name is always whole: the old one or the new one."""

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        torch.save({'old': 1}, tmp_path / 'file.pth')
        return tmp_path / 'file.pth'

    @staticmethod
    def assert_untouched(path: Path) -> None:
        assert torch.load(path, weights_only=True) == {'old': 1}
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()])
    def test_failure_while_writing(self, path, monkeypatch, error) -> None:
        def write_half(content, target) -> None:
            Path(target).write_bytes(b'half')
            raise error

        monkeypatch.setattr(torch, 'save', write_half)
        with pytest.raises(type(error)):
            save_checkpoint_file({'new': 2}, path)
        monkeypatch.undo()
        self.assert_untouched(path)

    def test_content_that_cannot_be_saved(self, path) -> None:
        with pytest.raises((pickle.PicklingError, AttributeError)):
            save_checkpoint_file({'new': lambda: None}, path)
        self.assert_untouched(path)

    def test_failure_while_renaming(self, path, monkeypatch) -> None:
        def refuse(*_) -> None:
            raise OSError('cross-device link')

        monkeypatch.setattr(os, 'replace', refuse)
        with pytest.raises(OSError, match='cross-device'):
            save_checkpoint_file({'new': 2}, path)
        self.assert_untouched(path)

    def test_old_file_is_replaced(self, path) -> None:
        save_checkpoint_file({'new': 2}, str(path))
        assert torch.load(path, weights_only=True) == {'new': 2}
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize('umask', [0o022, 0o027, 0o077])
    def test_permissions_are_those_of_an_ordinary_file(self, tmp_path, umask) -> None:
        previous = os.umask(umask)
        try:
            save_checkpoint_file({'new': 2}, tmp_path / 'saved.pth')
            (tmp_path / 'ordinary').touch()
        finally:
            os.umask(previous)
        modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ('saved.pth', 'ordinary')]
        assert modes[0] == modes[1] == 0o666 & ~umask
