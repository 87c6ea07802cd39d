"""What `tools/check_env.py --table` prints: the environment as a Markdown table for an issue.

Every row stands for itself: whatever fails is written into its cell. Imports nothing but the
standard library until it is asked.
"""

import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_LENGTH = 300  # of a cell; a reason may be a compiler's whole output

Row = tuple[str, Callable[[], str]]


def environment_table(
    stacks: Iterable[Iterable[str]], ops_problem: Callable[[], str | None]
) -> str:
    """Returns the table.

    Args:
        stacks: The distributions of each OpenMMLab stack; those of the first stand in the table
            where none of any is installed.
        ops_problem: Runs an operator of mmcv; returns what went wrong, or None.
    """
    stacks = [list(stack) for stack in stacks]
    found = [name for stack in stacks for name in stack if _version(name)]
    missing = [] if found else stacks[0]
    rows: list[Row] = [
        ('Python', lambda: f'{platform.python_version()} ({platform.python_implementation()})'),
        ('platform', lambda: f'{platform.platform()}, {os.cpu_count()} cores'),
        ('C++ compiler', lambda: _first_line(*_compiler(), '--version')),
        ('nvcc', lambda: _last_line('nvcc', '--version')),
        ('torch', _torch),
        *(_of_package(name) for name in ['numpy', *found, *missing]),
        ('operators of mmcv', lambda: ops_problem() or 'work'),
        ('mmsw', _mmsw),
        *_backends(),
        *map(_of_package, ('taichi', 'mmpretrain', 'torchvision', 'opencv-python', 'matplotlib')),
        *map(
            _of_package, ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'setuptools', 'pytest')
        ),
        ('variables', _variables),
    ]
    lines = [f'| {name} | {_cell(tell)} |' for name, tell in rows]
    return '\n'.join(['| part | found |', '| --- | --- |', *lines])


def _cell(tell: Callable[[], str]) -> str:
    """What a row tells in one line, without the folders of this machine."""
    try:
        text = tell()
    except (Exception, SystemExit) as error:  # whatever a broken installation raises is the finding
        text = f'fails: {type(error).__name__}: {error}'
    for folder, short in ((_ROOT, '.'), (sys.prefix, 'PREFIX'), (Path.home(), '~')):
        text = text.replace(str(folder), short)
    text = ' '.join(text.split()).replace('|', r'\|')
    return text if len(text) <= _LENGTH else f'{text[: _LENGTH - 3]}...'


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _of_package(name: str) -> Row:
    return name, lambda: _version(name) or 'not installed'


def _torch() -> str:
    import torch

    if torch.version.cuda is None:
        return f'{torch.__version__}, without CUDA'
    if not torch.cuda.is_available():
        return f'{torch.__version__}, for CUDA {torch.version.cuda}, sees no GPU'
    names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    gpus = f'{torch.cuda.device_count()} x {", ".join(sorted(names))}'
    return f'{torch.__version__}, for CUDA {torch.version.cuda}, sees {gpus}'


def _mmsw() -> str:
    version = runpy.run_path(str(_ROOT / 'mmsw' / 'version.py'))['__version__']
    if shutil.which('git') is None or not (_ROOT / '.git').exists():
        return version
    commit = _first_line('git', '-C', str(_ROOT), 'rev-parse', '--short', 'HEAD')
    changed = _output('git', '-C', str(_ROOT), 'status', '--porcelain', '--untracked-files=no')
    return f'{version}, commit {commit}{", with changes" if changed else ""}'


def _backends() -> list[Row]:
    """A row per backend, or one row that says why nobody knows."""
    try:
        import _clone  # noqa: F401, takes mmsw from this checkout

        from mmsw.ops import available_backends

        found = available_backends()
    except (Exception, SystemExit) as error:  # as above
        reason = f'cannot be asked: {type(error).__name__}: {error}'
        return [('backends of mmsw', lambda: reason)]
    return [
        (f'backend {name}', lambda here=here: 'runs' if here is True else f'no: {here}')
        for name, here in found.items()
    ]


def _variables() -> str:
    """Variables that change what mmsw or torch does; none of them holds a secret."""
    pattern = r'MMSW_\w+|(OMP|MKL)_NUM_THREADS|OMP_WAIT_POLICY|CUDA_VISIBLE_DEVICES'
    found = [f'{name}={os.environ[name]}' for name in os.environ if re.fullmatch(pattern, name)]
    return ', '.join(sorted(found)) or 'none'


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip()


def _compiler() -> list[str]:
    """With what is set before it, as in ``CXX='ccache g++'``."""
    return shlex.split(os.environ.get('CXX', '')) or ['c++']


def _first_line(*command: str) -> str:
    return _line(0, *command)


def _last_line(*command: str) -> str:
    return _line(-1, *command)


def _line(index: int, *command: str) -> str:
    if shutil.which(command[0]) is None:
        return 'not found'
    lines = _output(*command).splitlines()
    return lines[index] if lines else 'says nothing'
