"""Building the compiled operators: what is tried, what is said, and whose file is loaded."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmsw.ops import compiled
from mmsw.ops.backends import compiled_backend, cpp_backend, cuda_backend

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import build_ops  # noqa: E402

sys.path.remove(str(ROOT))

LIBRARY = compiled.library_path(torch.__version__).name
RECORD = compiled.record_path(torch.__version__).name
STEERING = {'CC', 'CXX', 'MMSW_BUILD_OPS', 'TORCH_CUDA_ARCH_LIST', 'PYTHONPATH'}

needs_compiler = pytest.mark.skipif(shutil.which('c++') is None, reason='compiler: there is no c++')


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what setup.py needs, without build products."""
    made = tmp_path_factory.mktemp('tree')
    for name in (
        'setup.py',
        'build_ops.py',
        'pyproject.toml',
        'README.md',
        'LICENSE',
        'model-index.yml',
    ):
        shutil.copy2(ROOT / name, made)
    ignore = shutil.ignore_patterns('__pycache__', '*.so', '_build_*')
    for name in ('mmsw', 'requirements', 'configs', 'tools'):
        shutil.copytree(ROOT / name, made / name, ignore=ignore)
    return made


def setup(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs ``setup.py`` of the tree; what it says is one text."""
    env = {key: value for key, value in os.environ.items() if key not in STEERING}
    return subprocess.run(
        [sys.executable, 'setup.py', '-q', *arguments],
        cwd=tree,
        env={**env, 'MAX_JOBS': '1', **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf-8',
        check=False,
    )


def build(tree: Path, out: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Builds the operators into ``out / 'lib'``."""
    places = ('--build-lib', str(out / 'lib'), '--build-temp', str(out / 'temp'))
    return setup(tree, 'build_ext', *places, *arguments, **variables)


def lines_of(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith(('mmsw:', 'error:'))]


def script(path: Path, text: str) -> str:
    """Writes a shell script that can be called; returns its path."""
    path.write_text(f'#!/bin/sh\n{text}', encoding='utf-8')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def refusing_openmp(tmp_path: Path) -> str:
    """A compiler without OpenMP, as Apple's; of the sources it compiles the name only, quickly."""
    empty = tmp_path / 'empty.cpp'
    empty.write_text('static int nothing;\n', encoding='utf-8')
    return script(
        tmp_path / 'c++',
        'for argument; do\n'
        '  shift\n'
        '  case $argument in\n'
        '    -fopenmp) echo "clang: error: unsupported option \'-fopenmp\'" >&2; exit 1 ;;\n'
        f'    *csrc/*.cpp) argument={empty} ;;\n'
        '  esac\n'
        '  set -- "$@" "$argument"\n'
        'done\n'
        f'exec {shutil.which("c++")} "$@"\n',
    )


BROKEN = 'echo "ld: something odd" >&2\necho "cc: fatal error: no license" >&2\nexit 1\n'
# compiles what it is probed with, not the operators
TOO_OLD = 'case "$*" in *csrc*) echo "x.cpp:1: error: what is a vector_size?" >&2; exit 1 ;; esac\n'


@pytest.mark.parametrize(
    ('compiler', 'arguments', 'reason'),
    [
        (None, [], r"no C\+\+ compiler '/nonexistent/c\+\+' was found"),
        (BROKEN, [], r"the C\+\+ compiler '\S+' does not work: cc: fatal error: no license"),
        (None, ['--compiler=msvc'], 'MSVC cannot compile them'),
        pytest.param(f'{TOO_OLD}exec c++ "$@"\n', [], 'the build failed: .+', marks=needs_compiler),
    ],
    ids=['no compiler', 'a broken compiler', 'MSVC', 'a compile error'],
)
def test_installing_goes_on_without_the_operators(
    tree: Path, tmp_path: Path, compiler: str | None, arguments: list[str], reason: str
) -> None:
    path = '/nonexistent/c++' if compiler is None else script(tmp_path / 'compiler', compiler)
    done = build(tree, tmp_path, *arguments, CXX=path, CC=path)
    assert done.returncode == 0, done.stdout
    (line,) = lines_of(done)
    assert re.fullmatch(
        rf'mmsw: the C\+\+ operators were not compiled \({reason}\); '
        'mmsw will use the slower torch backend',
        line,
    )
    ops = tmp_path / 'lib' / 'mmsw' / 'ops'
    assert [file.name for file in ops.iterdir()] == [RECORD]
    written = json.loads((ops / RECORD).read_text(encoding='utf-8'))
    assert f'({written["cpp"]})' in line
    told = compiled.missing_reason('cpp', torch.__version__, ops)
    assert told == f'it was not compiled ({written["cpp"]}); {compiled.REBUILD}'


def test_operators_that_are_asked_for_are_needed(tree: Path, tmp_path: Path) -> None:
    done = build(tree, tmp_path, CXX='/nonexistent/c++', MMSW_BUILD_OPS='require')
    assert done.returncode != 0
    assert lines_of(done)[-1].startswith('error: MMSW_BUILD_OPS asks for the operators')


@needs_compiler
def test_a_compiler_without_openmp_compiles_the_operators(
    tree: Path, tmp_path: Path, refusing_openmp: str
) -> None:
    done = build(tree, tmp_path, CXX=refusing_openmp, CC=refusing_openmp, MMSW_BUILD_OPS='1')
    assert done.returncode == 0, done.stdout
    (line,) = lines_of(done)
    assert line == (
        f'mmsw: the C++ compiler {refusing_openmp!r} refuses -fopenmp; '
        'the C++ operators will use one thread'
    )
    assert (tmp_path / 'lib' / 'mmsw' / 'ops' / LIBRARY).is_file()
    assert not (tmp_path / 'lib' / 'mmsw' / 'ops' / RECORD).exists()
    # objects of one torch are not taken for those of another
    objects = list((tmp_path / 'temp').rglob('*.o'))
    sources = tree / 'mmsw' / 'ops' / 'csrc'
    assert len(objects) == len([*sources.glob('*.cpp'), *sources.glob('cpu/*.cpp')])
    tag = compiled.torch_tag(torch.__version__)
    assert {path.relative_to(tmp_path / 'temp').parts[0] for path in objects} == {tag}


@needs_compiler
def test_openmp_is_used_where_the_compiler_takes_it(tmp_path: Path) -> None:
    compiler = [shutil.which('c++')]
    if build_ops.probe(compiler, ['-fopenmp']) is not None:
        pytest.skip('openmp: c++ does not know it here')
    assert build_ops.openmp_flags(compiler, ['-fopenmp']) == ['-fopenmp']
    assert build_ops.openmp_flags(compiler, []) == []


def test_nothing_of_the_last_build_gets_into_the_next(tree: Path, tmp_path: Path) -> None:
    package = tmp_path / 'mmsw'
    (package / 'ops').mkdir(parents=True)
    old = [package / 'gone.py', package / 'ops' / '_cpp.so', package / 'ops' / '_cpp_torch1_0.so']
    for file in old:
        file.touch()
    done = setup(tree, 'build', '--build-lib', str(tmp_path), MMSW_BUILD_OPS='0')
    assert done.returncode == 0, done.stdout
    assert (package / 'ops' / 'compiled.py').is_file()
    assert not [file for file in old if file.exists()]
    assert lines_of(done) == [
        'mmsw: the C++ operators were not compiled (MMSW_BUILD_OPS=0 was set); '
        'mmsw will use the slower torch backend'
    ]
    assert 'MMSW_BUILD_OPS=0' in compiled.missing_reason('cpp', torch.__version__, package / 'ops')


def without_torch(folder: Path) -> str:
    """A search path on which torch cannot be imported, as in pip's build isolation."""
    (folder / 'torch.py').write_text("raise ImportError('No module named torch')\n", 'utf-8')
    return str(folder)


def test_installing_without_torch_says_how_to_get_the_operators(tree: Path, tmp_path: Path) -> None:
    hidden = without_torch(tmp_path)
    done = setup(tree, 'build', '--build-lib', str(tmp_path / 'lib'), PYTHONPATH=hidden)
    assert done.returncode == 0, done.stdout
    (line,) = lines_of(done)
    assert 'torch cannot be imported where mmsw is built' in line
    assert '--no-build-isolation' in line
    told = compiled.missing_reason('cpp', torch.__version__, tmp_path / 'lib' / 'mmsw' / 'ops')
    assert 'torch cannot be imported where mmsw is built' in told
    done = setup(tree, 'build', PYTHONPATH=hidden, MMSW_BUILD_OPS='1')
    assert done.returncode != 0
    assert 'error: MMSW_BUILD_OPS asks for the operators, but torch cannot' in done.stdout


@pytest.mark.parametrize(
    ('value', 'expected'),
    [(None, 'try'), ('', 'try'), ('0', 'no'), ('1', 'must'), ('require', 'must')],
)
def test_the_wish_for_operators(value: str | None, expected: str) -> None:
    assert build_ops.wish(value) == expected


def test_an_unknown_wish_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"MMSW_BUILD_OPS='yes' is unknown; choose 0, 1 or"):
        build_ops.wish('yes')


CUDA_11_8 = ['35', '50', '60', '70', '75', '80', '86', '87', '89', '90']
CUDA_12_8 = ['50', '60', '70', '75', '80', '86', '89', '90', '100', '101', '120']
CUDA_13_0 = ['75', '80', '86', '87', '88', '89', '90', '100', '110', '103', '120', '121']


@pytest.mark.parametrize(
    ('listed', 'version', 'expected'),
    [
        (CUDA_11_8, '2.7.1+cu118', '7.5;8.0;8.6;8.9;9.0+PTX'),
        (CUDA_12_8, '2.4.1+cu124', '7.5;8.0;8.6;8.9;9.0+PTX'),
        (CUDA_12_8, '2.13.0+cu128', '7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX'),
        (CUDA_13_0, '2.13.0+cu130', '7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX'),
        (['35', '50'], '2.4.0+cu118', ''),
    ],
)
def test_architectures_where_no_gpu_is_visible(
    listed: list[str], version: str, expected: str
) -> None:
    text = ''.join(f'compute_{name}\n' for name in listed)
    assert build_ops.default_architectures(text, version) == expected


def test_nvcc_is_asked_for_the_architectures(tmp_path: Path) -> None:
    nvcc = script(tmp_path / 'nvcc', '[ "$*" = --list-gpu-arch ] || exit 1\necho compute_80\n')
    assert build_ops.choose_architectures(nvcc, '2.13.0+cu130') == '8.0+PTX'
    nvcc = script(tmp_path / 'nvcc', 'echo compute_30\n')
    with pytest.raises(build_ops.CannotBuildError, match='set TORCH_CUDA_ARCH_LIST'):
        build_ops.choose_architectures(nvcc, '2.13.0+cu130')
    with pytest.raises(build_ops.CannotBuildError, match='cannot be asked'):
        build_ops.choose_architectures(str(tmp_path / 'none'), '2.13.0+cu130')


def test_each_torch_has_a_file_of_its_own() -> None:
    versions = ['2.13.0+cpu', '2.13.0+cu130', '2.14.1+cpu', '2.14.0.dev20261001+cpu', '2.4.1']
    for backend in ('cpp', 'cuda'):
        names = [compiled.library_name(backend, version) for version in versions]
        assert len(set(names)) == len(versions)
        assert all(name.isidentifier() for name in names)
    assert compiled.library_name('cpp', '2.13.0+cpu') == '_cpp_torch2_13_0_cpu'


def test_a_library_of_another_torch_is_named_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('library_path', 'missing_reason'):
        monkeypatch.setattr(
            compiled, name, functools.partial(getattr(compiled, name), folder=tmp_path)
        )
    monkeypatch.setattr(torch, '__version__', '2.99.0+cpu')
    assert compiled_backend.load('cpp') == f'it was not compiled; {compiled.REBUILD}'
    other = tmp_path / '_cpp_torch2_13_0_cpu.so'
    other.write_bytes(b'not to be loaded')
    reason = compiled_backend.load('cpp')
    assert reason == (
        'it was compiled for another torch (_cpp_torch2_13_0_cpu.so), this is torch 2.99.0+cpu; '
        f'{compiled.REBUILD}'
    )
    damaged = compiled.library_path('2.99.0+cpu')
    damaged.write_bytes(b'no library')
    assert compiled_backend.load('cpp').startswith(f'{damaged.name} cannot be loaded (')


@pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)
def test_a_library_that_was_renamed_is_asked_for_its_torch(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns('__pycache__', 'csrc', '*.so')
    shutil.copytree(ROOT / 'mmsw' / 'ops', tmp_path / 'mmsw' / 'ops', ignore=ignore)
    shutil.copy2(ROOT / 'mmsw' / 'errors.py', tmp_path / 'mmsw')
    renamed = compiled.library_path('2.99.0+cpu', tmp_path / 'mmsw' / 'ops')
    shutil.copy2(compiled.library_path(torch.__version__), renamed)
    code = (
        "import torch; torch.__version__ = '2.99.0+cpu'\n"
        'from mmsw.ops.backends import cpp_backend\n'
        'print(cpp_backend.unavailable_reason())\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding='utf-8',
        check=False,
    )
    release = torch.__version__.partition('+')[0]
    assert f'{renamed.name} was compiled for torch {release}' in done.stdout
    assert 'this is torch 2.99.0+cpu' in done.stdout


def test_the_library_of_each_backend_is_that_of_the_running_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's is none for a certain Python either; without one, the reason says how to build it."""
    suffix = compiled.LIBRARY_SUFFIX
    name = compiled.library_path('2.99.0+cu130', tmp_path, backend='cuda').name
    assert name == f'_cuda_torch2_99_0_cu130{suffix}'
    for function in ('library_path', 'missing_reason'):
        monkeypatch.setattr(
            compiled, function, functools.partial(getattr(compiled, function), folder=tmp_path)
        )
    monkeypatch.setattr(torch, '__version__', '2.99.0+cu130')
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    expected = f'it was not compiled; {compiled.REBUILD}; nvcc has to be on PATH'
    assert cuda_backend._load() == expected
    (tmp_path / name).write_bytes(b'no library')
    assert cuda_backend._load().startswith(f'{name} cannot be loaded (')


def test_no_record_is_left_of_a_whole_build(tmp_path: Path) -> None:
    compiled.write_record(tmp_path, '2.13.0+cpu', {'cpp': 'no compiler'})
    assert compiled.recorded_reason('cpp', '2.13.0+cpu', tmp_path) == 'no compiler'
    assert compiled.recorded_reason('cuda', '2.13.0+cpu', tmp_path) is None
    assert compiled.recorded_reason('cpp', '2.14.0+cpu', tmp_path) is None
    compiled.write_record(tmp_path, '2.13.0+cpu', {})
    assert list(tmp_path.iterdir()) == []
