"""What the demonstration came to: scores and density before and after, and a picture."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from mmsw.apis.data import check_data
from mmsw.checkpoint import load_checkpoint_file
from mmsw.errors import SparsityChangedError, UsageError
from mmsw.sparsity import Density, SparsityReport

from .finished import FinishedRun
from .picture import draw_scenes
from .tiles import TASKS

RUN_FOLDERS = {'seg': 'finetune', 'det': 'detection'}  # where tools/train.py wrote, by task
PICTURES = {'seg': 'demo.png', 'det': 'demo_detection.png'}
_FIRST = ('mIoU', 'box AP', 'mask AP')  # of the scores; these stand in the picture
_SMALL_KERNELS = re.compile(r'(stages\.(\d+)\.\d+\.shift_wise)\.paths\.\d+\.weight$')


@dataclass(frozen=True)
class DemoReport:
    """Figures of a finished demonstration.

    Attributes:
        start: Checkpoint file that the backbone started from.
        end: Checkpoint file that the training left.
        num_scenes: Held-out scenes that the scores are of.
        scores: Score name -> per cent before and after training.
        densities: Before and after training, counted in the files' tensors.
        num_zeros: Weights that are zero in the start file; all of them are in the end file.
        picture: Picture of some held-out scenes.
        beside: Name of another network -> its scores after training.
    """

    start: Path
    end: Path
    num_scenes: int
    scores: dict[str, tuple[float, float]]
    densities: tuple[SparsityReport, SparsityReport]
    num_zeros: int
    picture: Path
    beside: dict[str, dict[str, float]]

    def __str__(self) -> str:
        before, after = self.densities
        rows = [
            (f'{name} on {self.num_scenes} held-out scenes', f'{old:.2f} %', f'{new:.2f} %')
            for name, (old, new) in self.scores.items()
        ]
        rows += [
            (f'{name} of {network}', '', f'{score:.2f} %')
            for network, scores in self.beside.items()
            for name, score in scores.items()
        ]
        rows += [
            (f'filters kept, stage {stage}', _share(density), _share(after.stages[stage]))
            for stage, density in sorted(before.stages.items())
        ]
        rows.append(('filters kept, in all', _share(before.total), _share(after.total)))
        lines = [f'{name:<32}{old:>22}{new:>22}' for name, old, new in rows]
        return '\n'.join(
            [
                f'{"":<32}{"before fine-tuning":>22}{"after":>22}',
                *lines,
                f'All {self.num_zeros} weights that are zero in {self.start}',
                f'are exactly zero in {self.end} (compared file with file).',
                f'Picture: {self.picture}',
            ]
        )


def demo_report(
    work_dir: str | os.PathLike[str],
    num_pictured: int = 4,
    task: str = 'seg',
    beside: Sequence[str | os.PathLike[str]] = (),
) -> DemoReport:
    """Score the network before and after training, compare the two files, and draw some scenes.

    Args:
        work_dir: Folder with the run of ``tools/train.py`` in one of ``RUN_FOLDERS``; the picture
            goes there.
        num_pictured: Held-out scenes to draw.
        task: ``'seg'`` or ``'det'``.
        beside: Folders of finished runs of other networks on the same data. They are scored, and
            get a row of the picture each.

    Returns:
        The figures.

    Raises:
        UsageError: If there is no finished run in a folder, or its data are gone or others.
        SparsityChangedError: If a pruned weight came back.
    """
    work_dir = Path(work_dir)
    run = FinishedRun.of(work_dir / RUN_FOLDERS[task], task)
    others = [FinishedRun.of(Path(folder), task) for folder in beside]
    start, end, *_ = run.start, run.end, *(other.end for other in others)
    for one in (run, *others):
        check_data(one.cfg, ['test_dataloader'])
    files = tuple(_tensors(path) for path in (start, end))
    densities = tuple(_densities(state) for state in files)
    num_zeros = _check_zeros(*files, names=(start, end))

    MMLogger.get_instance('demo_report', log_level='ERROR')
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the toolboxes', about their own code
        torch.manual_seed(0)
        dataset = run.dataset()
        scenes = TASKS[task](dataset, num_pictured)
        before, _ = run.evaluate(False, dataset)
        rows, scores = scenes.scenes(), {}
        for one in (run, *others):
            data = one.dataset()
            _check_same(data, dataset, one, run)
            name = one.name if one.name not in scores else str(one.folder)
            scores[name], samples = one.evaluate(True, data)
            label = _row_name(name, scores[name], one.parameters())
            rows.append(scenes.predicted(label, samples))
    draw_scenes(rows, scenes.legend, work_dir / PICTURES[task])
    after = scores.pop(run.name)
    names = sorted(after, key=lambda name: name not in _FIRST)
    return DemoReport(
        start,
        end,
        len(dataset),
        {name: (before.get(name, 0.0), after[name]) for name in names},
        densities,
        num_zeros,
        work_dir / PICTURES[task],
        {name: _main_scores(found) for name, found in scores.items()},
    )


def _check_same(data: object, first: object, one: FinishedRun, run: FinishedRun) -> None:
    if len(data) != len(first) or data.metainfo['classes'] != first.metainfo['classes']:
        raise UsageError(
            f'{one.folder} was trained for other data than {run.folder}: {len(data)} held-out '
            f'scenes of {len(data.metainfo["classes"])} classes, expected {len(first)} of '
            f'{len(first.metainfo["classes"])}'
        )


def _main_scores(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: scores[name] for name in _FIRST if name in scores}


def _row_name(name: str, scores: Mapping[str, float], parameters: int) -> str:
    figures = [f'{key} {value:.1f} %' for key, value in _main_scores(scores).items()]
    return '\n'.join([name, *figures, f'{parameters / 1e6:.1f} M parameters'])


def _tensors(path: Path) -> dict[str, Tensor]:
    """Small kernels in a checkpoint file by their name in the backbone."""
    checkpoint = load_checkpoint_file(path)
    state: Mapping[str, Tensor] = checkpoint.get('state_dict', checkpoint)
    found = ((_SMALL_KERNELS.search(key), tensor) for key, tensor in state.items())
    return {match[0]: tensor for match, tensor in found if match}


def _densities(kernels: Mapping[str, Tensor]) -> SparsityReport:
    """Filters with a weight that is not zero, without asking any mask."""
    layers: dict[str, Density] = {}
    stages: dict[int, Density] = {}
    for key, weight in kernels.items():
        match = _SMALL_KERNELS.search(key)
        alive = weight.flatten(1) != 0
        density = Density(int(alive.any(1).sum()), len(alive), int(alive.sum()), alive.numel())
        layers[match[1]] = layers.get(match[1], Density()) + density
        stages[int(match[2])] = stages.get(int(match[2]), Density()) + density
    return SparsityReport(layers, stages, sum(stages.values(), Density()))


def _check_zeros(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: tuple[Path, Path]
) -> int:
    """Number of zeros in the first file; raise unless all of them are zeros in the second."""
    if before.keys() != after.keys():
        raise UsageError(f'{names[0]} and {names[1]} are of different networks')
    lost = {
        key: count
        for key in before
        if (count := int(torch.count_nonzero(after[key][before[key] == 0])))
    }
    if lost:
        raise SparsityChangedError(
            f'{sum(lost.values())} weights that are zero in {names[0]} are not in {names[1]}: '
            f'{", ".join(f"{key} ({count})" for key, count in list(lost.items())[:3])}'
        )
    return sum(int((weight == 0).sum()) for weight in before.values())


def _share(density: Density) -> str:
    return f'{density.kept}/{density.total} = {density.density:.2%}'
