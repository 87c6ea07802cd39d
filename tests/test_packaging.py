"""What is installed, what it says of itself and what it requires."""

import email
import re
import runpy
import shutil
import sys
import tarfile
import zipfile
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging_helpers import ROOT, copy_of_sources, run

from mmsw.ops import compiled

VERSION = runpy.run_path(str(ROOT / 'mmsw' / 'version.py'))['__version__']
DIST_INFO = f'mmshiftwise-{VERSION}.dist-info'
STACKS = ('openmmlab', 'onedl')
# the test suite was run with these
PYTHONS_TRIED = ['Programming Language :: Python :: 3.11']


def read_requirements(name: str) -> list[Requirement]:
    """Parses ``requirements/{name}.txt``."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith('#')]


@pytest.fixture(scope='module')
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_sources(tmp_path_factory.mktemp('source') / 'mmsw')


@pytest.fixture(scope='module')
def quick_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A compiler that leaves out what takes long: of the operators it compiles the names only."""
    folder = tmp_path_factory.mktemp('compiler')
    (folder / 'empty.cpp').touch()
    compiler = shutil.which('c++')
    path = folder / 'c++'
    path.write_text(
        '#!/bin/sh\n'
        'for argument; do\n'
        '  shift\n'
        '  case $argument in\n'
        f'    *csrc/*.cpp) argument={folder}/empty.cpp ;;\n'
        '  esac\n'
        '  set -- "$@" "$argument"\n'
        'done\n'
        f'exec {compiler} "$@"\n',
        encoding='utf-8',
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope='module')
def wheel(
    source_tree: Path, quick_compiler: str, tmp_path_factory: pytest.TempPathFactory
) -> zipfile.ZipFile:
    """The wheel built from the source distribution, so that both are tried."""
    if not any(metadata.distributions(name='pip')):
        pytest.skip('pip: this environment has none, and it builds the wheel')
    out = tmp_path_factory.mktemp('dist')
    build_sdist = f'from setuptools import build_meta; build_meta.build_sdist({str(out)!r})'
    made = run(sys.executable, '-c', build_sdist, cwd=source_tree)
    assert made.returncode == 0, made.stdout
    (sdist,) = out.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        packed = {name.partition('/')[2] for name in archive.getnames()}
    folders = (ROOT / 'mmsw' / 'ops' / 'csrc', ROOT / 'docs')
    sources = [path for folder in folders for path in folder.rglob('*') if path.is_file()]
    sources = [path for path in sources if path.suffix != '.pyc'] + [ROOT / 'mkdocs.yml']
    assert {path.relative_to(ROOT).as_posix() for path in sources} < packed
    pip_wheel = (
        'pip',
        'wheel',
        '--no-index',
        '--no-cache-dir',
        '--no-deps',
        '--no-build-isolation',
    )
    tools = dict(CXX=quick_compiler, CC=quick_compiler)
    made = run(sys.executable, '-m', *pip_wheel, '-w', str(out), str(sdist), cwd=out, **tools)
    assert made.returncode == 0, made.stdout
    (path,) = out.glob('*.whl')
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope='module')
def wheel_metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f'{DIST_INFO}/METADATA'))


def test_version_is_the_same_everywhere(wheel_metadata: Message) -> None:
    assert wheel_metadata['Version'] == VERSION
    latest = re.search(
        r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'), flags=re.MULTILINE
    )
    assert latest is not None
    assert latest[1] == VERSION


def test_wheel_metadata(wheel_metadata: Message) -> None:
    # mmsw is the name of somebody else's distribution
    assert wheel_metadata['Name'] == 'mmshiftwise'
    assert 'Apache-2.0' in (wheel_metadata['License'] or wheel_metadata['License-Expression'])
    assert wheel_metadata['Requires-Python'] == '>=3.10'
    assert wheel_metadata['Description-Content-Type'] == 'text/markdown'


def test_description_for_a_package_index_needs_no_files_beside_it(
    wheel_metadata: Message,
) -> None:
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    text = wheel_metadata.get_payload()
    targets = re.findall(r'\]\(([^)]*)\)', text)
    assert targets
    assert [target for target in targets if not target.startswith('https://')] == []
    assert '![' not in text
    assert '<!--' not in text
    for block in re.findall(r'^```.*?^```', readme, re.M | re.S):  # code is left alone
        assert block in text
    headings = re.findall(r'^#+ .*', readme, re.M)
    assert re.findall(r'^#+ .*', text, re.M) == headings
    links = re.findall(r'(?<!!)\[([^\]]*)\]\(docs/', readme)
    assert links
    assert all(link in text for link in links)


def test_installing_mmsw_pulls_in_no_stack(wheel_metadata: Message) -> None:
    requirements = map(Requirement, wheel_metadata.get_all('Requires-Dist'))
    unconditional = [str(item) for item in requirements if item.marker is None]
    assert sorted(unconditional) == ['numpy', 'torch>=2.4']


@pytest.mark.parametrize(
    'extra',
    [*STACKS, 'pretrain', 'onedl-pretrain', 'taichi', 'demo', 'export', 'monitor', 'test', 'docs'],
)
def test_extra_is_its_requirements_file(wheel_metadata: Message, extra: str) -> None:
    expected = read_requirements(extra)
    if extra == 'test':
        expected += read_requirements('demo')
    found = set()
    for item in map(Requirement, wheel_metadata.get_all('Requires-Dist')):
        if item.marker is not None and item.marker.evaluate({'extra': extra}):
            item.marker = None
            found.add(str(item))
    assert found == {str(item) for item in expected}


def test_classifiers_name_what_was_tried(wheel_metadata: Message) -> None:
    classifiers = wheel_metadata.get_all('Classifier')
    systems = [name for name in classifiers if name.startswith('Operating System')]
    assert systems == ['Operating System :: POSIX :: Linux']
    pythons = [name for name in classifiers if re.search(r':: 3\.\d+$', name)]
    assert pythons == PYTHONS_TRIED


def test_wheel_holds_the_cpp_operators_of_this_torch_only(wheel: zipfile.ZipFile) -> None:
    built = [name for name in wheel.namelist() if name.endswith(('.so', '.pyd'))]
    assert f'mmsw/ops/{compiled.library_path(torch.__version__).name}' in built
    assert [name for name in built if compiled.torch_tag(torch.__version__) not in name] == []
    assert not Path(wheel.filename).name.endswith('none-any.whl')


def test_wheel_ships_configs_tools_and_model_index(wheel: zipfile.ZipFile) -> None:
    expected = {'mmsw/.mim/model-index.yml'}
    for folder in ('configs', 'tools'):
        expected |= {
            f'mmsw/.mim/{path.relative_to(ROOT).as_posix()}'
            for path in (ROOT / folder).rglob('*')
            if path.is_file() and path.suffix != '.pyc'
        }
    names = set(wheel.namelist())
    assert {name for name in names if name.startswith('mmsw/.mim/')} == expected
    assert {name.split('/')[0] for name in names} == {'mmsw', DIST_INFO}
    record = wheel.read(f'{DIST_INFO}/RECORD').decode()
    assert all(f'{name},' in record for name in expected)


def test_configs_of_the_wheel_are_found_by_name(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / 'site')
    script = (
        'import mmsw\n'
        'from mmengine.hub import get_config\n'
        'from mmsw.apis import load_config\n'
        "print(get_config('mmsw::upernet_sw_t_ade20k.py').filename)\n"
        "print(load_config('upernet_sw_t_ade20k').filename)\n"
    )
    made = run(sys.executable, '-c', script, cwd=tmp_path, PYTHONPATH=str(tmp_path / 'site'))
    path = str(tmp_path / 'site' / 'mmsw' / '.mim' / 'configs' / 'upernet_sw_t_ade20k.py')
    assert made.stdout.splitlines()[-2:] == [path, path], made.stdout


@pytest.mark.parametrize('stack', STACKS)
def test_stack_is_pinned_once(stack: str) -> None:
    direct = read_requirements(stack)
    toolboxes = [item for item in direct if 'mm' in item.name]
    assert len(toolboxes) == 4
    for item in toolboxes:
        assert [spec.operator for spec in item.specifier] == ['==']
    constrained = {
        canonicalize_name(item.name) for item in read_requirements(f'constraints-{stack}')
    }
    assert not constrained & {canonicalize_name(item.name) for item in toolboxes}


def test_formatters_are_the_same_in_make_and_pre_commit() -> None:
    found = {item.name: str(item.specifier) for item in read_requirements('lint')}
    hooks = (ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8')
    ruff = re.search(r'ruff-pre-commit\s+rev: v(\S+)', hooks)
    clang_format = re.search(r'\[clang-format==(\S+)\]', hooks)
    assert ruff is not None
    assert clang_format is not None
    assert found == {'ruff': f'=={ruff[1]}', 'clang-format': f'=={clang_format[1]}'}
