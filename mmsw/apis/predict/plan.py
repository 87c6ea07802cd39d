"""What a prediction will write, and where: settled before a model runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmsw.errors import UsageError
from mmsw.wording import listed

from ..checks.folders import check_writable
from .inputs import Source, find_sources

SAVES = ('overlay', 'label-map', 'json', 'csv')
_FOLDERS = ('overlay', 'label-map')  # one file per input
_TABLES = {'json': 'predictions.json', 'csv': 'predictions.csv'}
_ONLY = {'label-map': 'mmseg', 'json': 'mmdet', 'csv': 'mmdet'}
_TASKS = {'mmseg': 'segmentor', 'mmdet': 'detector'}
_PICTURES = ('.png', '.jpg', '.jpeg')


@dataclass(frozen=True)
class PredictOptions:
    """How to predict and what to write; see :func:`mmsw.apis.predict.predict_files`."""

    save: tuple[str, ...] = ('overlay',)
    batch_size: int = 1
    score_thr: float = 0.3
    opacity: float = 0.5
    legend: bool = True
    window: tuple[int, int] | None = None
    overlap: float = 0.25

    def check(self, scope: str) -> None:
        """Refuse values that make no sense.

        Args:
            scope: Toolbox of the model, ``'mmseg'`` or ``'mmdet'``.

        Raises:
            UsageError: If there is one; names it.
        """
        unknown = [name for name in self.save if name not in SAVES]
        if unknown or not self.save:
            raise UsageError(f'save must be some of {", ".join(SAVES)}, got {list(self.save)}')
        if scope not in _TASKS:
            raise UsageError(
                f'the config has default_scope={scope!r}; files are predicted for mmseg and mmdet'
            )
        for name in self.save:
            if _ONLY.get(name, scope) != scope:
                fit = [item for item in SAVES if _ONLY.get(item, scope) == scope]
                raise UsageError(
                    f'save {name} is for a {_TASKS[_ONLY[name]]}, and the config is of a '
                    f'{_TASKS[scope]}, which has {", ".join(fit)}'
                )
        for name in ('score_thr', 'opacity'):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f'{name} must be between 0 and 1, got {getattr(self, name)}')
        if self.batch_size < 1:
            raise UsageError(f'batch_size must be 1 or more, got {self.batch_size}')
        if self.window is not None and min(self.window) < 32:
            raise UsageError(f'window must be 32 pixels or more each way, got {self.window}')
        if not 0 <= self.overlap <= 0.5:
            raise UsageError(f'overlap must be between 0 and 0.5, got {self.overlap}')


@dataclass(frozen=True)
class PredictPlan:
    """Inputs, options and output files.

    Attributes:
        sources: What is predicted, in order.
        out: Folder of all outputs.
        options: As asked for.
        overlays: Source -> picture, or video for a video.
        label_maps: Source -> PNG file, or a folder of them for a video.
    """

    sources: tuple[Source, ...]
    out: Path
    options: PredictOptions
    overlays: Mapping[Source, Path]
    label_maps: Mapping[Source, Path]

    def table(self, kind: str) -> Path:
        """The file that has the objects of all inputs, ``'json'`` or ``'csv'``."""
        return self.out / _TABLES[kind]


def plan_prediction(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    scope: str,
    options: PredictOptions | None = None,
    *,
    overwrite: bool = False,
) -> PredictPlan:
    """Settle what is predicted and written. No image is read, nothing is written.

    Args:
        inputs: As :func:`mmsw.apis.predict.inputs.find_sources`.
        out: Folder for outputs; need not exist.
        scope: Toolbox of the model.
        options: Default: overlays.
        overwrite: Whether outputs may replace files.

    Raises:
        UsageError: If options make no sense, an input stands for nothing, the folder cannot be
            written to, or an output is there already.
        mmsw.datasets.DataError: If an input is not there.
    """
    options = options or PredictOptions()
    options.check(scope)
    out = Path(check_writable(out, 'folder for outputs'))
    sources = tuple(find_sources(inputs, [out / name for name in _FOLDERS]))
    names = [source.name for source in sources]
    plan = PredictPlan(
        sources,
        out,
        options,
        _below(out / 'overlay', sources, _renamed(names, [_picture(item) for item in sources])),
        _below(out / 'label-map', sources, _renamed(names, [_label_map(item) for item in sources])),
    )
    _check_free(plan, overwrite)
    return plan


def _below(folder: Path, sources: Sequence[Source], names: Sequence[str]) -> dict[Source, Path]:
    return {source: folder / name for source, name in zip(sources, names, strict=True)}


def _picture(source: Source) -> str:
    if source.kind != 'image':
        return '.mp4'
    suffix = PurePosixPath(source.name).suffix
    return suffix if suffix.lower() in _PICTURES else '.png'


def _label_map(source: Source) -> str:
    """Suffix of a label map; a video has a folder, which is called as the video is."""
    return '.png' if source.kind == 'image' else PurePosixPath(source.name).suffix


def _renamed(names: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Names with other suffixes, behind the old ones where files could not be told apart."""
    short = [
        str(PurePosixPath(name).with_suffix(suffix))
        for name, suffix in zip(names, suffixes, strict=True)
    ]
    long = [f'{name}{suffix}' for name, suffix in zip(names, suffixes, strict=True)]
    counts = Counter(name.casefold() for name in short)
    mixed = [
        whole if counts[name.casefold()] > 1 else name
        for name, whole in zip(short, long, strict=True)
    ]
    return mixed if len({name.casefold() for name in mixed}) == len(mixed) else long


def _check_free(plan: PredictPlan, overwrite: bool) -> None:
    """Refuse outputs that are there.

    Raises:
        UsageError: If one is there, or would replace an input.
    """
    save = plan.options.save
    outputs = [plan.table(kind) for kind in _TABLES if kind in save]
    outputs += plan.overlays.values() if 'overlay' in save else ()
    outputs += plan.label_maps.values() if 'label-map' in save else ()
    inputs = {os.path.realpath(source.path) for source in plan.sources}
    lost = [str(path) for path in outputs if os.path.realpath(path) in inputs]
    if lost:
        raise UsageError(f'{listed(lost)} would be replaced by its output: name another folder')
    there = [str(path) for path in outputs if os.path.lexists(path)]
    if there and not overwrite:
        raise UsageError(
            f'{len(there)} of {len(outputs)} outputs are there already ({listed(there, 2)}): name '
            'another folder, or replace them with --overwrite (overwrite=True)'
        )
    for folder in {path.parent for path in outputs}:
        check_writable(folder, 'folder for outputs')
