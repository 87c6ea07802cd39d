"""What is installed, what it requires, and how set-up answers to bad input."""

import ast
import email
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
import torch
from check_env import is_installed_as_mmsw, operators_are_built, torch_version
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmsw.ops import compiled

ROOT = Path(__file__).resolve().parents[1]
VERSION = runpy.run_path(str(ROOT / 'mmsw' / 'version.py'))['__version__']
DIST_INFO = f'mmshiftwise-{VERSION}.dist-info'
STACKS = ('openmmlab', 'onedl')
# variables by which a surrounding `make` or user would reach into the calls below
STEERING = {
    'MAKEFLAGS',
    'MFLAGS',
    'STACK',
    'PYTHON',
    'BASE_PYTHON',
    'CXX',
    'TEST_ARGS',
    'MMSW_BUILD_OPS',
}

# the test suite was run with these
PYTHONS_TRIED = ['Programming Language :: Python :: 3.11']

needs_make = pytest.mark.skipif(shutil.which('make') is None, reason='make: not installed')


def read_requirements(name: str) -> list[Requirement]:
    """Parses ``requirements/{name}.txt``."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith('#')]


def run(*command: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command without the variables that steer set-up; output is one text."""
    env = {key: value for key, value in os.environ.items() if key not in STEERING}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**env, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.fixture(scope='module')
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what belongs to the source distribution: no environment, no build products."""
    tree = tmp_path_factory.mktemp('source') / 'mmsw'
    tree.mkdir()
    ignore = shutil.ignore_patterns('__pycache__')
    for folder in ('mmsw', 'configs', 'tools', 'requirements', 'tests', 'docs'):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignore)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, tree)
    return tree


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
    [*STACKS, 'pretrain', 'onedl-pretrain', 'taichi', 'demo', 'monitor', 'test', 'docs'],
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


@needs_make
@pytest.mark.parametrize('stack', ['bogus', '', 'openmmlab onedl'])
def test_unknown_stack_is_refused(stack: str) -> None:
    made = run('make', 'setup', f'STACK={stack}')
    assert made.returncode != 0
    assert f"STACK='{stack}' is unknown; choose STACK=openmmlab or STACK=onedl" in made.stdout


@needs_make
def test_python_that_does_not_exist_is_refused() -> None:
    made = run('make', 'test', 'PYTHON=/nonexistent/python')
    assert made.returncode != 0
    assert "PYTHON='/nonexistent/python' was not found" in made.stdout
    assert 'pytest' not in made.stdout


@needs_make
def test_python_that_lacks_packages_is_told_which(tmp_path: Path) -> None:
    bare = tmp_path / 'python'  # an interpreter that sees the standard library only
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n', 'utf-8')
    bare.chmod(0o755)
    made = run('make', 'demo', f'PYTHON={bare}')
    assert made.returncode != 0
    for module, package in (('mmseg', 'mmsegmentation'), ('skimage', 'scikit-image')):
        assert f'module {module} is missing (package {package})' in made.stdout
    assert 'nothing is installed' in made.stdout
    assert 'demo data' not in made.stdout


@pytest.mark.parametrize(
    ('variables', 'message'),
    [
        ({'BASE_PYTHON': '/nonexistent/python'}, "BASE_PYTHON='/nonexistent/python' was not found"),
        (
            {'BASE_PYTHON': sys.executable, 'CXX': '/nonexistent/c++'},
            "no C++ compiler '/nonexistent/c++'",
        ),
    ],
)
def test_setup_finds_faults_before_it_installs(
    source_tree: Path, variables: dict[str, str], message: str
) -> None:
    made = run('tools/setup_env.sh', 'onedl', cwd=source_tree, **variables)
    assert made.returncode == 1
    assert message in made.stdout
    assert not (source_tree / '.venv').exists()


def test_setup_refuses_an_old_interpreter(source_tree: Path, tmp_path: Path) -> None:
    old = tmp_path / 'python'  # answers every question as a Python before 3.10 would
    old.write_text(
        '#!/bin/sh\ncase "$2" in *sys.exit*) exit 1 ;; *) echo 3.9 ;; esac\n', encoding='utf-8'
    )
    old.chmod(0o755)
    made = run('tools/setup_env.sh', 'onedl', cwd=source_tree, BASE_PYTHON=str(old))
    assert made.returncode == 1
    assert f"BASE_PYTHON='{old}' is Python 3.9; mmsw needs 3.10 or newer" in made.stdout
    assert not (source_tree / '.venv').exists()


FAKE_PYTHON = """#!/bin/sh
echo "$0 $*" >>"$CALLS"
case "$*" in
    *sys.version_info*) echo 3.11 ;;
    "- "*) exit "$PINS_DIFFER" ;;
    *"-m venv"*) exit 1 ;;
    *"$FAILS"*) exit 1 ;;
    *--operators*) exit 1 ;;
    *sha256*) cksum ;;
esac
"""


@pytest.mark.parametrize(
    ('stamp', 'moved', 'pins_differ', 'kept'),
    [
        ('ready', False, False, True),
        ('ready', False, True, False),
        ('ready', True, False, False),
        ('unfinished', False, False, False),
    ],
)
def test_new_requirements_are_installed_into_the_environment_that_is_there(
    source_tree: Path, tmp_path: Path, stamp: str, moved: bool, pins_differ: bool, kept: bool
) -> None:
    """Unless it lacks the pinned torch or mmcv, was made elsewhere or never finished."""
    tree = tmp_path / 'mmsw'
    ignore = shutil.ignore_patterns('tests', 'configs', '*.so')
    shutil.copytree(source_tree, tree, ignore=ignore)
    scripts = tree / '.venv' / 'onedl' / 'bin'
    scripts.mkdir(parents=True)
    (scripts.parent / stamp).write_text('stack 0\nmmsw 0\n', encoding='utf-8')
    place = tmp_path / 'elsewhere' if moved else tree
    (scripts / 'activate').write_text(f'VIRTUAL_ENV="{place}/.venv/onedl"\n', encoding='utf-8')
    for python in (scripts / 'python', tmp_path / 'base'):
        python.write_text(FAKE_PYTHON, encoding='utf-8')
        python.chmod(0o755)
    calls = tmp_path / 'calls'
    settings = dict(CALLS=str(calls), PINS_DIFFER=str(int(pins_differ)), CXX='true', MAX_JOBS='1')
    settings |= dict(BASE_PYTHON=str(tmp_path / 'base'), FAILS='nothing')
    if kept:  # first an update that is cut off
        broken = {**settings, 'FAILS': 'requirements/test.txt'}
        assert run('tools/setup_env.sh', 'onedl', cwd=tree, **broken).returncode == 1
        assert 'stack 0' not in (scripts.parent / 'ready').read_text(encoding='utf-8')
    made = run('tools/setup_env.sh', 'onedl', cwd=tree, **settings)
    called = calls.read_text(encoding='utf-8')
    assert ('-m venv' in called) != kept
    assert scripts.exists() == kept
    assert ('-r requirements/test.txt' in called) == kept
    assert not [line for line in called.splitlines() if 'install' in line and 'mmcv' in line]
    assert made.returncode == (0 if kept else 1), made.stdout
    if kept:
        assert 'updating .venv/onedl' in made.stdout
        assert (scripts.parent / 'ready').read_text(encoding='utf-8') != 'stack 0\nmmsw 0\n'


def calls_without_encoding(path: Path) -> list[str]:
    """Places where a file is read or written as text in whatever encoding the machine has."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, 'id', None)
        named = {word.arg: word.value for word in node.keywords}
        if name == 'open':  # open(file, mode, ...), path.open(mode, ...)
            place = 0 if method else 1
            mode = node.args[place] if len(node.args) > place else named.get('mode')
            text = not (isinstance(mode, ast.Constant) and 'b' in mode.value)
        else:  # path.read_text(encoding, ...), path.write_text(text, encoding, ...)
            place = {'read_text': 0, 'write_text': 1}.get(name, -1) if method else -1
            text = place >= 0 and len(node.args) <= place
        if text and 'encoding' not in named:
            found.append(f'{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}')
    return found


def test_text_files_name_their_encoding() -> None:
    """Where the machine's encoding is not UTF-8, writing a multiplication sign would fail."""
    sources = [*ROOT.glob('*.py'), *(ROOT / 'mmsw').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
    assert len(sources) > 100
    wrong = [place for path in sources for place in calls_without_encoding(path)]
    not_text = ('Image.open', 'os.open', 'Frames.open')  # have no encoding
    assert [place for place in wrong if not place.endswith(not_text)] == []


def test_the_version_of_torch_is_known_without_importing_it() -> None:
    assert torch_version() == torch.__version__


@pytest.mark.parametrize('leaves', ['library', 'record', 'nothing', 'those of another torch'])
def test_set_up_builds_where_the_operators_of_this_torch_are_missing(
    tmp_path: Path, leaves: str
) -> None:
    shutil.copy2(ROOT / 'mmsw' / 'ops' / 'compiled.py', tmp_path)
    if leaves == 'library':
        compiled.library_path(torch.__version__, tmp_path).touch()
    elif leaves == 'record':
        compiled.write_record(tmp_path, torch.__version__, {'cpp': 'MSVC cannot compile them'})
    elif leaves == 'those of another torch':
        compiled.library_path('2.99.0+cpu', tmp_path).touch()
    assert operators_are_built(tmp_path) == (leaves in ('library', 'record'))


@pytest.mark.parametrize(
    ('origin', 'ours'),
    [
        ({'url': 'file://{}', 'dir_info': {'editable': True}}, True),
        ({'url': 'file://{}', 'dir_info': {}}, False),
        ({'url': 'file:///elsewhere', 'dir_info': {'editable': True}}, False),
        (None, False),  # from the package index: somebody else's
    ],
)
def test_only_this_checkout_is_removed_under_the_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict | None, ours: bool
) -> None:
    checkout = tmp_path / 'check out'
    info = tmp_path / 'mmsw-0.0.37.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Name: mmsw\nVersion: 0.0.37\n', encoding='utf-8')
    if origin is not None:
        url = origin['url'].format(str(checkout).replace(' ', '%20'))
        (info / 'direct_url.json').write_text(json.dumps({**origin, 'url': url}), encoding='utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert is_installed_as_mmsw(checkout) == ours


@pytest.mark.parametrize('silence', ['read', 'bash32_read'])
def test_silence_is_not_taken_for_the_end(silence: str) -> None:
    """Bash 3.2, which macOS has, ends a read that waited too long with 1, as the end of a file."""
    text = (ROOT / 'tools' / 'setup_env.sh').read_text(encoding='utf-8')
    parts = [
        re.search(rf'^{name}\(\) {{(?:[^\n]*}}$|.*?^}})', text, flags=re.M | re.S)[0]
        for name in ('note', 'progress')
    ]
    script = '\n'.join(
        [
            'bash32_read() { builtin read "$@" || return 1; }',
            'heartbeat=2',
            *parts,
        ]
    ).replace('IFS= read', f'IFS= {silence}')
    feed = '(echo Collecting first; sleep 5; echo Collecting second) | progress'
    done = run('bash', '-c', f'set -euo pipefail\n{script}\n{feed}')
    assert done.returncode == 0, done.stdout
    said = [line.partition('] ')[2] for line in done.stdout.splitlines()]
    assert said[0] == 'Collecting first'
    assert said[-1] == 'Collecting second'
    assert set(said[1:-1]) == {'still working'}
