"""The house has floors: an import only goes down, and no files import each other in a circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [  # from the ground up; what stands in one row knows nothing of its neighbours
    {
        'component_name',
        'config_package',
        'errors',
        'install_hint',
        'random_state',
        'registration',
        'summed',
        'text_table',
        'threads',
        'utils',
        'version',
        'whole_file',
        'whole_number',
        'wording',
    },
    {'figure', 'json_file', 'ops'},
    {'sparsity'},
    {'checkpoint', 'datasets'},
    {'engine'},
    {'models'},
    {'analysis'},
    {'deploy'},
    {'apis'},
    {'demo'},
    {'benchmarks'},
]
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}
FILES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in sorted((ROOT / 'mmsw').rglob('*.py'))
}


def imports_of(name: str, path: Path) -> set[str]:
    """Modules that a file imports, those inside of functions too, by their whole names."""
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package.split('.')[: len(package.split('.')) - node.level + 1]
            module = '.'.join([*(start if node.level else []), *filter(None, [node.module])])
            # `from package import name`: the name may be a module of its own
            inside = {f'{module}.{alias.name}' for alias in node.names} & FILES.keys()
            found |= inside
            if len(inside) < len(node.names):
                found.add(module)
    return found


IMPORTS = {name: imports_of(name, path) for name, path in FILES.items()}


def room_of(name: str) -> str:
    """The file or folder right below ``mmsw``."""
    return name.split('.')[1]


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(name) for name in FILES if name != 'mmsw'} == set(HEIGHT)


@pytest.mark.parametrize('room', sorted(HEIGHT))
def test_imports_only_go_down(room: str) -> None:
    up = {
        f'{name} -> {imported}'
        for name, imports in IMPORTS.items()
        if name != 'mmsw' and room_of(name) == room
        for imported in imports
        if imported.startswith('mmsw.')
        and room_of(imported) != room
        and HEIGHT[room_of(imported)] >= HEIGHT[room]
    }
    assert up == set()


def test_the_page_about_the_layout_names_every_floor() -> None:
    page = (ROOT / 'docs/layout.md').read_text(encoding='utf-8')
    rows = [line.split('|')[1] for line in page.splitlines() if line.startswith('| `mmsw.')]
    named = [set(re.findall(r'`mmsw\.(\w+)`', row)) for row in rows]
    folders = [{room for room in floor if (ROOT / 'mmsw' / room).is_dir()} for floor in FLOORS]
    assert named == [floor for floor in reversed(folders) if floor]


def test_no_circle() -> None:
    # What only hands names on from the files of its folder is the folder's face.
    faces = {
        name
        for name, path in FILES.items()
        if path.name == '__init__.py' and not re.search(r'^(def|class) ', path.read_text(), re.M)
    }
    graph = {
        name: {found for found in IMPORTS[name] if found in FILES and found not in faces}
        for name in FILES
        if name not in faces
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f'these files import each other: {" -> ".join(error.args[1])}')


def test_the_operator_needs_torch_and_numpy_alone() -> None:
    known = {'mmsw', 'numpy', 'torch', 'taichi', *sys.stdlib_module_names}
    needed = {
        found.partition('.')[0]
        for name, imports in IMPORTS.items()
        if name.startswith('mmsw.ops')
        for found in imports
    }
    assert needed <= known
    always = subprocess.run(
        [sys.executable, '-c', 'import sys, mmsw.ops; print(*sys.modules)'],
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'taichi' not in always.stdout.split()


WITHOUT_MMENGINE = """
import sys
sys.modules.update(mmengine=None, mmcv=None)  # as if they were absent
import torch
import mmsw.ops
pattern = mmsw.ops.ShiftPattern.draw(13, 3, 2, 2)
arms = mmsw.ops.shift_wise_conv2d(torch.ones(1, 2, 5, 5), torch.ones(10, 1, 3, 3), pattern)
assert [tuple(arm.shape) for arm in arms] == [(1, 2, 5, 5)] * 3
net = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3))
net[0].weight.data[0] = 0
import mmsw
mmsw.sparsity.attach_masks(net, r'0\\.weight')
net.load_state_dict(net.state_dict() | mmsw.sparsity.masks_from_zeros(net.state_dict()))
print(mmsw.sparsity.report(net).total.kept)
mmsw.ops, mmsw.sparsity
for statement in ('mmsw.models', 'from mmsw import checkpoint', 'mmsw.nothing'):
    try:
        exec(statement)
    except (AttributeError, ImportError) as error:
        print(type(error).__name__, error)
"""


def test_the_operator_needs_no_openmmlab() -> None:
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_MMENGINE],
        env={'PYTHONPATH': str(ROOT), 'PATH': '', 'MMSW_BACKEND': 'torch'},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept, models, checkpoint, nothing = done.stdout.splitlines()
    line = (
        'mmengine and mmcv cannot be found, so of mmsw only mmsw.ops and mmsw.sparsity can be used'
    )
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1
    assert kept == '3'
    assert 'pip install' in done.stderr
    assert models.startswith(f'ImportError {line}')
    assert checkpoint.startswith(f'ImportError {line}')
    assert nothing == "AttributeError module 'mmsw' has no attribute 'nothing'"
