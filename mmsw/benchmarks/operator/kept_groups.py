"""What a run of the operator benchmark keeps after each group, so that it can go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmsw.errors import UsageError
from mmsw.json_file import read_json, write_json
from mmsw.ops import compiled

from ..digests import digest, file_digest, source_digest
from .cases import OperatorShape
from .settings import BenchmarkSettings

FILE = 'unfinished.json'
_KIND = 'operator_groups'
_FOLDER = Path(__file__).parent
# Of the benchmark, what measures; the rest writes tables and pictures.
_CODE = (
    *('benchmark.py', 'cases.py', 'contenders.py', 'job.py', 'rows.py'),
    *('runtimes.py', 'shift_alternatives.py'),
)
_COMPILED = ('cpp', 'cuda')
# What a run has to share with the one that it goes on with, beside its settings.
_MACHINE = ('cpu', 'cpus', 'cpu_capability', 'torch', 'gpu', 'cuda')


class KeptGroups:
    """The finished groups of a run, in a file of its folder.

    Args:
        out: Folder of the run.
        conditions: What they were measured under, see :func:`conditions`.

    Attributes:
        sittings: When the run was begun, and each time that it went on.

    Raises:
        UsageError: If the folder has groups that were measured under other conditions.
    """

    def __init__(self, out: Path, conditions: dict[str, Any]) -> None:
        self._path, self._conditions = out / FILE, conditions
        found = read_json(self._path, _KIND)
        if found is not None and found['conditions'] != conditions:
            names = [key for key in conditions if found['conditions'].get(key) != conditions[key]]
            raise UsageError(
                f'{self._path} is of an unfinished run that differs in {", ".join(names)}. Figures '
                'of different runs are not mixed: delete that file, or name another --out'
            )
        self._groups: dict[str, dict[str, Any]] = found['groups'] if found else {}
        self.sittings: list[str] = found['sittings'] if found else []

    def of(self, name: str) -> dict[str, Any] | None:
        """What was kept of a group; None if it is still to be measured."""
        return self._groups.get(name)

    def keep(self, name: str, found: dict[str, Any]) -> None:
        """Keep what was measured of a group."""
        self._groups[name] = found
        content = dict(conditions=self._conditions, sittings=self.sittings, groups=self._groups)
        write_json(self._path, _KIND, content, indent=None)

    def __len__(self) -> int:
        return len(self._groups)

    def clear(self) -> None:
        """The run is finished, and its report is written."""
        self._path.unlink(missing_ok=True)


def conditions(
    settings: BenchmarkSettings,
    shapes: Sequence[OperatorShape],
    seed: int,
    backends: Sequence[str],
    about: dict[str, Any],
) -> dict[str, Any]:
    """What decides the figures of a run.

    Args:
        settings: Of the run.
        shapes: Layers that are measured.
        seed: Of maps and kernels.
        backends: That are measured.
        about: What :func:`..measure.machine` found.
    """
    libraries = [compiled.library_path(torch.__version__, backend=name) for name in _COMPILED]
    return {
        'settings': digest(dataclasses.asdict(settings)),
        'layers': digest([dataclasses.asdict(shape) for shape in shapes]),
        'seed': seed,
        'backends': list(backends),
        'machine': {key: about[key] for key in _MACHINE if key in about},
        'code': source_digest([compiled.FOLDER, *(_FOLDER / name for name in _CODE)]),
        'operators': digest([file_digest(path) for path in libraries if path.is_file()]),
    }
