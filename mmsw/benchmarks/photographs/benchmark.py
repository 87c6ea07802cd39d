"""The benchmark on real photographs, from its data to its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmsw.errors import UsageError
from mmsw.json_file import read_json, write_json
from mmsw.whole_file import write_text

from ..measure import usable_cpus
from ..page import checked_page, put_text, write_tables
from ..runs import Failure, result_of
from ..study import check_least, check_names
from ..transfer.plan import TransferRun
from ..transfer.study import TransferStudy
from . import parts
from .page import headline, network_title, page_text, start_title
from .pictures import class_scores, draw_cells, draw_fields, draw_predictions, draw_trade
from .plan import (
    NETWORKS,
    OTHERS,
    PRESETS,
    SHIFT_WISE,
    SPARSITIES,
    Preset,
    pretrained_file,
)
from .results import KIND, collect
from .times import measure_times

PARTS = ('scratch', 'transfer', 'long', 'times', 'pictures')
_BLOCK = 'photographs'  # of the README
_SETS = ('camvid', 'bccd')
_SHOWN = ('sw_mini_dynamic90_camvid', 'r18_narrow_camvid')  # beside the dense shift-wise network


def benchmark_photographs(
    out: Path,
    data: Path = Path('data'),
    preset: str = 'standard',
    wanted: Sequence[str] = PARTS,
    jobs: int = 1,
    page: Path | None = None,
    readme: Path | None = None,
    dry_run: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Failure]:
    """Train networks on CamVid, fine-tune them on BCCD, time and picture them.

    What is finished is kept, so a call that was stopped goes on.

    Args:
        out: Folder of everything that is written.
        data: Folder with ``camvid`` and ``bccd``, see ``docs/real_data.md``.
        preset: One of ``PRESETS``.
        wanted: Some of ``PARTS``.
        jobs: Trainings side by side, of one thread each.
        page: Page of the documentation that gets tables, pictures, and figures beside it.
        readme: File that gets a table of some networks, in its block ``photographs``; needs the
            times.
        dry_run: Say what would be trained, and do nothing.
        progress: Called with a line of text now and then; None: prints it.

    Returns:
        The runs that failed.

    Raises:
        UsageError: If something asked for is impossible; nothing was trained then.
    """
    progress = progress or partial(print, flush=True)
    check_names('parts', wanted, PARTS)
    check_least({'jobs': jobs})
    if jobs > usable_cpus():
        raise UsageError(f'jobs must be at most the {usable_cpus()} processors here, got {jobs}')
    _check_data(data, wanted)
    _check_pretrained(out, wanted)
    if page is not None:
        checked_page(page)
    if readme is not None:
        checked_page(readme, [_BLOCK])
        if 'times' not in wanted:
            raise UsageError(f'the table of {readme} has times: add times to --parts')
    chosen = PRESETS[preset]
    studies = _Studies(data, out, chosen, jobs, progress)
    failures: list[Failure] = []
    for study in studies.of(wanted):
        failures += study.carry_out(dry_run)
    if dry_run or failures:
        return failures
    result = studies.result('times' in wanted)
    folders = studies.finished_networks()
    write_json(out / 'photographs.json', KIND, result)
    write_text(out / 'photographs.md', page_text(result))
    if page is not None:
        write_tables(page, page_text(result), KIND, result)
    if readme is not None and result['times'] is not None:
        put_text(readme, headline(result), _BLOCK)
    if 'pictures' in wanted and folders:
        place = (page or out / 'photographs.md').with_suffix('')
        _draw(result, folders, place, progress)
        _draw_more(folders, studies.finished_starts(), place, out)
    progress(f'written to {out}: photographs.md, photographs.json')
    return failures


class _Studies:
    """The trainings, and what of them is finished."""

    def __init__(
        self, data: Path, out: Path, preset: Preset, jobs: int, progress: Callable[[str], None]
    ) -> None:
        self.out, self.preset, self.progress = out, preset, progress
        self.comparison = parts.comparison(data, out, preset, jobs, progress)
        self.transfer = parts.transfer(data, out, preset, jobs, progress)
        self.long = parts.long_run(data, out, preset, progress)

    def of(self, wanted: Sequence[str]) -> list[TransferStudy]:
        """Those that were asked for, in the order that they need each other."""
        return [
            *([self.comparison] if 'scratch' in wanted else []),
            *(self.transfer.values() if 'transfer' in wanted else []),
            *([self.long] if 'long' in wanted else []),
        ]

    def finished_networks(self) -> dict[str, Path]:
        """Folder of the first run of each network of the comparison, if all of them have one."""
        runs = {run.network.name: run for run in self.comparison.plan() if run.seed == 0}
        if any(result_of(run) is None for run in runs.values()):
            return {}
        return {name: runs[name].folder for name in NETWORKS}

    def finished_starts(self) -> dict[str, Path]:
        """Folder of the first fine-tuning from some starts, if all of them have one."""
        found = {}
        for share, runs in self._transfer_runs().items():
            for run in runs:
                if run.seed == 0 and run.start in ('scratch', 'dense', 'sparse'):
                    title = start_title({'start': run.start, 'share': share})
                    found[title if run.start == 'sparse' else run.start] = run
        if not found or any(result_of(run) is None for run in found.values()):
            return {}
        kept = [title for title in found if str(SPARSITIES[0]) not in title]
        return {title: found[title].folder for title in kept[:3]}

    def result(self, timed: bool) -> dict[str, Any]:
        """Everything that is finished; times are measured if they were asked for."""
        folders, path = self.finished_networks(), self.out / 'times.json'
        times = None
        if folders:
            times = (
                measure_times(folders, path, self.progress)
                if timed
                else read_json(path, 'photographs_times')
            )
        long = self.long.plan()
        classes = None
        if result_of(long[0]) is not None:
            classes = class_scores(long[0].folder)
        return collect(
            self.preset, self.comparison.plan(), self._transfer_runs(), long, times, classes
        )

    def _transfer_runs(self) -> dict[int, list[TransferRun]]:
        """Of every sparsity; none while the checkpoints that they start from are missing."""
        found = {}
        for share, study in self.transfer.items():
            files = study.settings.pretrained.values()
            found[share] = study.plan() if all(path.is_file() for path in files) else []
        return found


def _check_data(data: Path, wanted: Sequence[str]) -> None:
    needed = _SETS if 'transfer' in wanted else _SETS[:1]
    missing = [str(data / name) for name in needed if not (data / name).is_dir()]
    if missing:
        raise UsageError(
            f'{" and ".join(missing)} not found: docs/real_data.md says where to get the images; '
            'name the folder that holds camvid and bccd with --data'
        )


def _check_pretrained(out: Path, wanted: Sequence[str]) -> None:
    files = [pretrained_file(out, share) for share in (0, *SPARSITIES)]
    missing = [path for path in files if not path.is_file()]
    if 'transfer' in wanted and 'scratch' not in wanted and missing:
        raise UsageError(
            f'transfer starts from what scratch trains, and {missing[0]} does not exist: add '
            'scratch to --parts'
        )


def _draw(
    result: dict[str, Any], folders: dict[str, Path], place: Path, progress: Callable[[str], None]
) -> None:
    """What is drawn from figures, named after the page."""
    torch.manual_seed(0)
    seen = {network_title(name): folders[name] for name in (SHIFT_WISE, _SHOWN[0], *OTHERS)}
    draw_fields(seen, place.with_name(f'{place.name}_fields.svg'), progress)
    if result['times'] is not None:
        draw_trade(result, place.with_name(f'{place.name}.svg'))


def _draw_more(folders: dict[str, Path], starts: dict[str, Path], place: Path, out: Path) -> None:
    """Predictions; photographs of CamVid, which have no licence, stay in the output folder."""
    shown = {network_title(name): folders[name] for name in (SHIFT_WISE, *_SHOWN)}
    draw_predictions(shown, out / 'predictions.png')
    draw_predictions(shown, place.with_name(f'{place.name}_predictions.png'), photographs=False)
    if starts:
        draw_cells(starts, place.with_name(f'{place.name}_cells.png'))
