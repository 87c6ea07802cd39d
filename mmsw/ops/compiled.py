"""Where the compiled operators lie, which torch they belong to, and why they are not there.

A library that was compiled for one torch may crash beside another one, or compute nonsense. So the
torch is part of the name of the file, as in ``_cpp_torch2_13_0_cpu.so``: environments that share a
source tree each find their own file, and a file of another torch is never loaded. A build that
leaves an operator out writes down the reason beside it.

``setup.py`` reads this file on its own, before torch or mmsw may be there. So it needs the standard
library only.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REBUILD = (
    'run `pip install --no-build-isolation --no-deps -e .` (or `.`) in the source tree of mmsw, '
    'with the Python that has this torch'
)
LIBRARY_SUFFIX = '.pyd' if sys.platform == 'win32' else '.so'
_NO_TORCH = 'no_torch'


def torch_tag(torch_version: str | None) -> str:
    """The part of a file name that stands for a version of torch, or for no torch at all."""
    if torch_version is None:
        return _NO_TORCH
    return 'torch' + re.sub('[^0-9A-Za-z]+', '_', torch_version)


def library_name(backend: str, torch_version: str) -> str:
    """Name of the library of a backend, without a suffix.

    Args:
        backend: ``'cpp'`` or ``'cuda'``.
        torch_version: ``torch.__version__``, the local part included.
    """
    return f'_{backend}_{torch_tag(torch_version)}'


def library_path(torch_version: str, folder: Path = FOLDER, backend: str = 'cpp') -> Path:
    """Where the library of this torch lies; it is no Python module and serves every Python."""
    return folder / (library_name(backend, torch_version) + LIBRARY_SUFFIX)


def release(torch_version: str) -> str:
    """Major, minor and patch number of a version: what torch's own headers tell a library."""
    found = re.match(r'\d+\.\d+\.\d+', torch_version)
    return found[0] if found else torch_version


def write_record(folder: Path, torch_version: str | None, reasons: dict[str, str]) -> None:
    """Writes down what a build left out and why; a build that left out nothing leaves no file.

    Args:
        folder: The folder ``mmsw/ops`` that was built into.
        torch_version: ``torch.__version__`` of the build, or ``None`` if torch was not there.
        reasons: Backend to one line.
    """
    path = record_path(torch_version, folder)
    if not reasons:
        path.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}')
    temporary.write_text(json.dumps(reasons, indent=1) + '\n', encoding='utf-8')
    os.replace(temporary, path)


def record_path(torch_version: str | None, folder: Path = FOLDER) -> Path:
    """The file of :func:`write_record`."""
    return folder / f'_build_{torch_tag(torch_version)}.json'


def recorded_reason(backend: str, torch_version: str, folder: Path = FOLDER) -> str | None:
    """What the build for this torch, or else one without torch, wrote down about a backend."""
    for version in (torch_version, None):
        try:
            reasons = json.loads(record_path(version, folder).read_text(encoding='utf-8'))
        except (OSError, ValueError):  # no such file, or not one of ours
            continue
        if isinstance(reasons, dict) and isinstance(reasons.get(backend), str):
            return reasons[backend]
    return None


def missing_reason(backend: str, torch_version: str, folder: Path = FOLDER) -> str:
    """Why the library of a backend is not there for this torch, and what to do.

    Args:
        backend: ``'cpp'`` or ``'cuda'``.
        torch_version: ``torch.__version__`` of the running torch.
        folder: The folder ``mmsw/ops`` to look into.
    """
    reason = recorded_reason(backend, torch_version, folder)
    if reason is not None:
        return f'it was not compiled ({reason}); {REBUILD}'
    others = sorted(path.name for path in folder.glob(f'_{backend}_torch*') if path.is_file())
    if others:
        return (
            f'it was compiled for another torch ({", ".join(others)}), this is torch '
            f'{torch_version}; {REBUILD}'
        )
    return f'it was not compiled; {REBUILD}'
