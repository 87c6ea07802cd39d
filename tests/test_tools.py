"""tools/train.py, tools/test.py and the torchrun scripts as a user calls them."""

import json
import os
import pickle
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_ade import write_ade

from mmsw.apis.unpublished import _PRETRAINING

ROOT = Path(__file__).resolve().parents[1]
RECIPE = 'configs/upernet_sw_t_ade20k.py'
MINI = 'tests/data/upernet_mini_ade20k.py'
DETECTOR = 'tests/data/retinanet_mini_coco.py'


def run(*command: object, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command without PYTHONPATH, in English, on one thread."""
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    env |= {'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, **variables}
    command = [str(part) for part in command]
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False)


def tool(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    return run(sys.executable, ROOT / 'tools' / name, *arguments, **options)


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def call(name: str, *arguments: object) -> int:
    """Calls the main function of a tool in this process; returns the exit code."""
    main = runpy.run_path(str(ROOT / 'tools' / name))['main']
    return main([str(argument) for argument in arguments])


def assert_one_error(returncode: int, stderr: str, *parts: str) -> None:
    """Exit code 2 and one line that says what is wrong, no traceback."""
    assert returncode == 2, stderr
    assert 'Traceback' not in stderr
    line = stderr.splitlines()[-1]
    assert line.startswith('error: '), stderr
    for part in parts:
        assert part in line


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    return write_ade(tmp_path / 'ade')


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Four training and two validation images with one box each, in COCO format."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for split, count in (('train', 4), ('val', 2)):
        (root / split).mkdir()
        images, annotations = [], []
        for index in range(count):
            image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / f'{index}.jpg'), image)
            images.append(dict(id=index, file_name=f'{index}.jpg', height=64, width=96))
            box = dict(bbox=[10, 10, 40, 30], area=1200, iscrowd=0, category_id=1)
            annotations.append(dict(id=index, image_id=index, **box))
        everything = dict(
            images=images, annotations=annotations, categories=[dict(id=1, name='square')]
        )
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(everything))
    return root


@pytest.mark.slow
@pytest.mark.ci
def test_help_from_anywhere_without_installation(tmp_path: Path) -> None:
    for name, option in (
        ('train.py', '--wandb'),
        ('test.py', '--show-dir'),
        ('print_config.py', '--out'),
    ):
        done = tool(name, '--help', cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert option in done.stdout
        assert '--data-root' in done.stdout


def test_tool_takes_mmsw_from_the_clone_that_it_lies_in(tmp_path: Path) -> None:
    """Also where another one is installed; the copy in an installed package takes that package."""
    package = tmp_path / 'site' / 'mmsw'
    (package / '.mim' / 'tools').mkdir(parents=True)
    (package / '__init__.py').touch()
    for tools in (tmp_path / 'clone' / 'tools', package / '.mim' / 'tools'):
        tools.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / 'tools' / '_clone.py', tools)
    (tmp_path / 'clone' / 'mmsw').mkdir()
    (tmp_path / 'clone' / 'mmsw' / '__init__.py').touch()
    script = 'import _clone, mmsw; print(mmsw.__file__)'
    for folder, expected in (
        (tmp_path / 'clone' / 'tools', tmp_path / 'clone' / 'mmsw'),
        (package / '.mim' / 'tools', package),
    ):
        (folder / 'tool.py').write_text(script)
        done = subprocess.run(
            [sys.executable, folder / 'tool.py'],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')},
            text=True,
            capture_output=True,
        )
        assert done.stdout.strip() == str(expected / '__init__.py'), done.stderr


def test_nothing_needs_torchvision(tmp_path: Path) -> None:
    script = (
        f'import sys; sys.modules["torchvision"] = None; sys.path.insert(0, {str(ROOT)!r})\n'
        'from mmsw.apis import load_config, register_toolbox\n'
        f'cfg = load_config({str(ROOT / RECIPE)!r})\n'
        'for cfg.default_scope in ("mmseg", "mmdet"): register_toolbox(cfg)\n'
    )
    done = run(sys.executable, '-c', script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_train_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = call('train.py', ROOT / RECIPE, '--from-scratch')
    parts = ('data/ade/ADEChallengeData2016 does not exist', 'images/training', '--data-root')
    assert_one_error(code, capsys.readouterr().err, *parts)
    assert list(tmp_path.iterdir()) == []


def test_test_without_checkpoint(ade: Path, capsys: pytest.CaptureFixture) -> None:
    code = call('test.py', ROOT / MINI, 'absent.pth', '--data-root', ade)
    assert_one_error(code, capsys.readouterr().err, 'checkpoint absent.pth does not exist')


def test_config_that_does_not_exist(capsys: pytest.CaptureFixture) -> None:
    for name, more in (('train.py', ()), ('test.py', ('a.pth',))):
        code = call(name, 'absent.py', *more)
        assert_one_error(code, capsys.readouterr().err, 'config file absent.py does not exist')
    assert_one_error(call('train.py', ROOT), capsys.readouterr().err, 'is a folder')


def test_config_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmseg'\n")
    for name, more in (('train.py', ()), ('test.py', ('a.pth',))):
        code = call(name, config, *more, '--work-dir', tmp_path / 'work')
        assert_one_error(code, capsys.readouterr().err, f'{config} has no model')
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('config', 'parts'),
    [
        (
            'upernet_sw_t_ade20k.py',
            ('checkpoints/sw_t_v2_imagenet1k.pth does not exist', 'lidc54/shift-wiseConv'),
        ),
        (
            'upernet_slak_t_ade20k.py',
            ('checkpoints/slak_t_imagenet1k.pth does not exist', 'VITA-Group/SLaK'),
        ),
    ],
)
def test_train_without_published_checkpoint(
    config: str, parts: tuple[str, ...], ade: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = ROOT / 'configs' / config
    code = call('train.py', config, '--data-root', ade, '--work-dir', tmp_path / 'work')
    assert_one_error(code, capsys.readouterr().err, *parts)
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('config', 'parts'),
    [
        ('upernet_sw_s_ade20k', ('one of SW-S v2;', 'configs/pretrain/sw_s_in1k.py')),
        ('upernet_sw_v1_t_ade20k', ('one of SW-T v1;', 'configs/pretrain/sw_v1_t_in1k.py')),
        ('upernet_sw_t_ade20k_sparsify', ('SW-T v2 without pruning;', 'sw_t_dense_in1k.py')),
    ],
)
def test_train_without_a_checkpoint_that_nobody_published(
    config: str, parts: tuple[str, ...], ade: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    wishes = ('--data-root', ade, '--work-dir', tmp_path / 'work')
    code = call('train.py', ROOT / 'configs' / f'{config}.py', *wishes)
    parts = (*parts, 'the only published file is that of SW-T v2')
    assert_one_error(code, capsys.readouterr().err, *parts)


def test_a_misspelt_file_to_start_from_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Neither of data that are missing too, nor of what others have published."""
    (tmp_path / 'sw_t.pth').touch()
    wishes = ('--work-dir', tmp_path / 'work', '--pretrained', tmp_path / 'sw-t.pth')
    code = call('train.py', ROOT / 'configs/upernet_sw_s_ade20k.py', *wishes)
    line = capsys.readouterr().err
    end = f'did you mean {tmp_path / "sw_t.pth"}?'
    assert_one_error(code, line, f'pretrained file {tmp_path / "sw-t.pth"} does not exist', end)
    assert line.strip().endswith(end)


def test_recipes_that_are_named_exist() -> None:
    for recipe in _PRETRAINING.values():
        assert (ROOT / 'configs' / 'pretrain' / f'{recipe}.py').is_file()


class TestWaitPolicy:
    """Threads of OpenMP that wait, on a machine without a GPU."""

    @pytest.fixture
    def clone(self, monkeypatch: pytest.MonkeyPatch) -> dict:
        for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'CUDA_VISIBLE_DEVICES'):
            monkeypatch.delenv(name, raising=False)
        return runpy.run_path(str(ROOT / 'tools' / '_clone.py'))

    def set_by(
        self, clone: dict, monkeypatch: pytest.MonkeyPatch, gpu: bool = False, busy: float = 0.5
    ) -> dict:
        function = clone['wait_passively']
        monkeypatch.setitem(function.__globals__, '_sees_gpu', lambda: gpu)
        monkeypatch.setitem(function.__globals__, '_busy_share', lambda: busy)
        before = dict(os.environ)
        function()
        return {key: value for key, value in os.environ.items() if key not in before}

    def test_they_sleep_beside_others(self, clone: dict, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.set_by(clone, monkeypatch) == {'OMP_WAIT_POLICY': 'passive'}
        monkeypatch.delenv('OMP_WAIT_POLICY')

    def test_they_spin_where_nobody_else_computes(
        self, clone: dict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.set_by(clone, monkeypatch, busy=0.1) == {}

    def test_the_load_is_that_of_the_cores(
        self, clone: dict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = iter(
            ['cpu  100 0 100 700 100 0 0 0 0 0\ncpu0', 'cpu  140 10 110 735 105 0 0 0 0 0\ncpu0']
        )
        monkeypatch.setattr(Path, 'read_text', lambda path, encoding: next(lines))
        assert clone['_busy_share'](0) == pytest.approx(0.6)
        monkeypatch.setattr(Path, 'read_text', lambda path, encoding: 'none')
        assert clone['_busy_share'](0) == 0

    @pytest.mark.parametrize('name', ['OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'])
    def test_what_a_user_says_stays(
        self, clone: dict, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, 'active')
        assert self.set_by(clone, monkeypatch) == {}

    def test_nothing_is_set_where_there_is_a_gpu(
        self, clone: dict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.set_by(clone, monkeypatch, gpu=True) == {}

    def test_hidden_gpus_are_none(self, clone: dict, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, 'exists', lambda path: path.name == 'nvidiactl')
        assert clone['_sees_gpu']()
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
        assert not clone['_sees_gpu']()


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_scripts_explain_themselves(script: str) -> None:
    for arguments in ([], ['config.py'], ['config.py', 'a.pth', 'two'], ['config.py', '0', '0']):
        done = run(ROOT / 'tools' / script, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith('usage: ')


def test_script_passes_everything_to_torchrun(tmp_path: Path) -> None:
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    nodes = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='host', PORT='1234')
    options = ['--nnodes=2', '--node_rank=1', '--master_addr=host', '--master_port=1234']
    for script, target in (('dist_train.sh', ['c.py']), ('dist_test.sh', ['c.py', 'a b.pth'])):
        done = run(
            ROOT / 'tools' / script, *target, '8', '--work-dir', 'w d', PYTHON=str(python), **nodes
        )
        module, name, *rest = done.stdout.splitlines()
        assert (module, name) == ('-m', 'torch.distributed.run')
        assert rest[:5] == [*options, '--nproc_per_node=8']
        assert Path(rest[5]).resolve() == ROOT / 'tools' / script[5:].replace('.sh', '.py')
        assert rest[6:] == [*target, '--launcher', 'pytorch', '--work-dir', 'w d']


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='no-gpu: there is one')
def test_two_processes_without_gpu_train_test_and_draw(ade: Path, tmp_path: Path) -> None:
    work = tmp_path / 'work'
    common = ('--data-root', ade, '--work-dir', work)
    done = run('tools/dist_train.sh', MINI, '2', *common, PORT=free_port())
    assert done.returncode == 0, done.stderr
    assert 'no GPU: 2 processes on the CPU over gloo' in done.stdout
    assert (work / 'iter_2.pth').is_file()

    outputs = ('--show-dir', tmp_path / 'shown', '--out', tmp_path / 'out')
    single = tool('test.py', MINI, work / 'iter_2.pth', *common, *outputs)
    assert single.returncode == 0, single.stderr
    assert len(list((tmp_path / 'shown').glob('*.png'))) == 2
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['0.png', '1.png']
    both = run('tools/dist_test.sh', MINI, work / 'iter_2.pth', '2', *common, PORT=free_port())
    assert both.returncode == 0, both.stderr
    scores = [done.stdout.rsplit('aAcc:', 1)[1].split('data_time')[0] for done in (single, both)]
    assert scores[0] == scores[1]


@pytest.mark.slow
@pytest.mark.ci
def test_detector_trains_tests_and_draws(coco: Path, tmp_path: Path) -> None:
    common = ('--data-root', coco, '--work-dir', tmp_path / 'work')
    done = tool('train.py', DETECTOR, *common)
    assert done.returncode == 0, done.stderr
    assert 'layer-wise decay 0.8 in backbone' in done.stdout
    outputs = ('--show-dir', tmp_path / 'shown', '--out', tmp_path / 'boxes.pkl')
    done = tool('test.py', DETECTOR, tmp_path / 'work' / 'epoch_1.pth', *common, *outputs)
    assert done.returncode == 0, done.stderr
    assert 'coco/bbox_mAP' in done.stdout
    assert sorted(path.name for path in (tmp_path / 'shown').iterdir()) == ['0.jpg', '1.jpg']
    assert len(pickle.loads((tmp_path / 'boxes.pkl').read_bytes())) == 2
