"""The benchmark on real photographs, from its data to its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmsw.errors import UsageError
from mmsw.json_file import read_json, write_json
from mmsw.whole_file import write_text

from ..measure import training_device
from ..page import (
    GPU,
    blocks_by_device,
    checked_page,
    figures_path,
    put_text,
    read_figures,
    write_tables,
)
from ..runs import Failure, result_of
from ..study import check_jobs, check_names
from ..transfer.study import TransferStudy
from . import parts
from .classes import class_scores
from .full_size_page import full_size_text
from .page import headline, network_title, page_text, start_title
from .pictures import draw_cells, draw_fields, draw_predictions, draw_trade
from .plan import (
    NETWORKS,
    OTHERS,
    PRESETS,
    SHIFT_WISE,
    SPARSE,
    SPARSITIES,
    Preset,
    pretrained_file,
)
from .results import KIND, KIND_FULL_SIZE, collect, collect_full_size
from .times import KIND as TIMES_KIND
from .times import measure_times

PARTS = ('scratch', 'transfer', 'long', 'times', 'pictures')
_BLOCK = 'photographs'  # of the README
_FULL_SIZE = 'full-size'  # of the page, which has one more without a name
_SETS = ('camvid', 'bccd')
# Start and share of pruned filters of what the picture of the cells shows.
_PICTURED = (('scratch', SPARSITIES[0]), ('dense', SPARSITIES[0]), ('sparse', 70))
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
        page: Page of the documentation that gets tables, pictures, and figures beside it: in its
            block without a name, if ``wanted`` has more than ``'long'``, and in ``full-size`` (or
            ``full-size-gpu``), if ``wanted`` has ``'long'``.
        readme: File that gets a table of some networks, in its block ``photographs``; needs the
            times. It has the scores at full size, if ``page`` has those of a GPU.
        dry_run: Say what would be trained, and do nothing.
        progress: Called with a line of text now and then; None: prints it.

    Returns:
        The runs that failed.

    Raises:
        UsageError: If something asked for is impossible; nothing was trained then.
    """
    progress = progress or partial(print, flush=True)
    check_names('parts', wanted, PARTS)
    check_jobs(jobs)
    _check_data(data, wanted)
    _check_pretrained(out, wanted)
    blocks = _blocks(wanted)
    if page is not None:
        checked_page(page, blocks.values())
    if readme is not None:
        checked_page(readme, [_BLOCK])
        if 'times' not in wanted:
            raise UsageError(f'the table of {readme} has times: add times to --parts')
    chosen = PRESETS[preset]
    studies = _Studies(data, out, chosen, wanted, jobs, progress)
    failures: list[Failure] = []
    for study in studies.of(wanted):
        failures += study.carry_out(dry_run)
    if dry_run or failures:
        return failures
    runs = _Runs(studies)
    if KIND in blocks:
        result = _result(chosen, runs, out, 'times' in wanted, progress)
        _write(out / 'photographs', page, page_text(result), KIND, result, blocks)
        if readme is not None and result['times'] is not None:
            put_text(readme, headline(result, _full_size_beside(page)), _BLOCK)
        if 'pictures' in wanted and runs.networks():
            place = (page or out / 'photographs.md').with_suffix('')
            _draw(result, runs, place, out, progress)
    if KIND_FULL_SIZE in blocks:
        found = collect_full_size(chosen, runs.long, class_scores)
        text = full_size_text(found)
        _write(out / 'full_size', page, text, KIND_FULL_SIZE, found, blocks)
    progress(f'written to {out}')
    return failures


def _blocks(wanted: Sequence[str]) -> dict[str, str]:
    """Which blocks of the page a call fills: kind of the figures -> name."""
    device = str(training_device())
    more = {KIND: ''} if set(wanted) - {'long'} else {}
    long = {KIND_FULL_SIZE: blocks_by_device([_FULL_SIZE], device)[0]} if 'long' in wanted else {}
    return {**more, **long}


def _full_size_beside(page: Path | None) -> dict[str, Any] | None:
    """Figures of the runs at full size on a GPU, if a page has them."""
    name = f'{_FULL_SIZE}{GPU}'
    if page is None or not figures_path(page, name).is_file():
        return None
    return read_figures(page, name)


def _write(
    place: Path,
    page: Path | None,
    text: str,
    kind: str,
    result: Mapping[str, Any],
    blocks: Mapping[str, str],
) -> None:
    """Tables and figures, in files of their own and in a page."""
    write_json(place.with_suffix('.json'), kind, result)
    write_text(place.with_suffix('.md'), text)
    if page is not None:
        write_tables(page, text, kind, result, blocks[kind])


class _Studies:
    """The trainings that there are."""

    def __init__(
        self,
        data: Path,
        out: Path,
        preset: Preset,
        wanted: Sequence[str],
        jobs: int,
        progress: Callable[[str], None],
    ) -> None:
        self.comparison = parts.comparison(data, out, preset, jobs, progress)
        # runs at full size alone need no mmdet, and no second data set
        others = set(wanted) - {'long'}
        self.transfer = parts.transfer(data, out, preset, jobs, progress) if others else {}
        self.long = parts.long_runs(data, out, preset, jobs, progress)

    def of(self, wanted: Sequence[str]) -> list[TransferStudy]:
        """Those that were asked for, in the order that they need each other."""
        return [
            *([self.comparison] if 'scratch' in wanted else []),
            *(self.transfer.values() if 'transfer' in wanted else []),
            *([self.long] if 'long' in wanted else []),
        ]


class _Runs:
    """The runs of all trainings, and what of them is finished.

    Planning looks at data and networks, so it is done once.
    """

    def __init__(self, studies: _Studies) -> None:
        self.comparison = studies.comparison.plan()
        self.long = studies.long.plan()
        # none while the checkpoints that they start from are missing
        self.transfer = {
            share: study.plan()
            if all(path.is_file() for path in study.settings.pretrained.values())
            else []
            for share, study in studies.transfer.items()
        }

    def networks(self) -> dict[str, Path]:
        """Folder of the first run of each network of the comparison, if all of them have one."""
        runs = {run.network.name: run for run in self.comparison if run.seed == 0}
        if any(result_of(run) is None for run in runs.values()):
            return {}
        return {name: runs[name].folder for name in NETWORKS}

    def starts(self) -> dict[str, Path]:
        """Folder of the first fine-tuning from each start of the picture, if all have one."""
        runs = {
            start_title({'start': run.start, 'share': share if run.start in SPARSE else 0}): run
            for share, planned in self.transfer.items()
            for run in planned
            if run.seed == 0 and ((run.start, share) in _PICTURED)
        }
        if any(result_of(run) is None for run in runs.values()):
            return {}
        return {title: run.folder for title, run in runs.items()}


def _result(
    preset: Preset, runs: _Runs, out: Path, timed: bool, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Everything that is finished; times are measured if they were asked for."""
    folders, path, times = runs.networks(), out / 'times.json', None
    if folders:
        times = measure_times(folders, path, progress) if timed else read_json(path, TIMES_KIND)
    return collect(preset, runs.comparison, runs.transfer, times)


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
    result: dict[str, Any], runs: _Runs, place: Path, out: Path, progress: Callable[[str], None]
) -> None:
    """Pictures named after the page; photographs of CamVid, without a licence, stay in ``out``."""
    folders = runs.networks()
    seen = {network_title(name): folders[name] for name in (SHIFT_WISE, _SHOWN[0], *OTHERS)}
    draw_fields(seen, place.with_name(f'{place.name}_fields.svg'), progress)
    if result['times'] is not None:
        draw_trade(result, place.with_name(f'{place.name}.svg'))
    shown = {network_title(name): folders[name] for name in (SHIFT_WISE, *_SHOWN)}
    maps = place.with_name(f'{place.name}_predictions.png')
    draw_predictions(shown, out / 'predictions.png', maps)
    if starts := runs.starts():
        draw_cells(starts, place.with_name(f'{place.name}_cells.png'))
