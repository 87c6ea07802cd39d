"""The trainings of the benchmark on real photographs, as studies of transfer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmsw.config_package import FOLDER

from ..transfer.study import TransferStudy
from .plan import (
    DETECTOR,
    NETWORKS,
    Preset,
    comparison_options,
    comparison_settings,
    long_options,
    long_settings,
    on_test_boxes,
    transfer_settings,
)

Progress = Callable[[str], None]


def comparison(
    data: Path, out: Path, preset: Preset, jobs: int, progress: Progress | None = None
) -> TransferStudy:
    """Every network of the comparison on CamVid, from random values."""
    return TransferStudy(
        [('seg', FOLDER / 'camvid' / f'{name}.py') for name in NETWORKS],
        {'seg': data / 'camvid'},
        comparison_options(preset),
        comparison_settings(out, preset, jobs),
        progress,
    )


def transfer(
    data: Path, out: Path, preset: Preset, jobs: int, progress: Progress | None = None
) -> dict[int, TransferStudy]:
    """Fine-tuning on BCCD of what the comparison trained on CamVid, by share of pruned filters."""
    return {
        share: TransferStudy(
            [('det', FOLDER / 'bccd' / f'{DETECTOR}.py')],
            {'det': data / 'bccd'},
            on_test_boxes(),
            settings,
            progress,
        )
        for share, settings in transfer_settings(out, preset, jobs).items()
    }


def long_runs(
    data: Path, out: Path, preset: Preset, jobs: int, progress: Progress | None = None
) -> TransferStudy:
    """Networks on CamVid at full size, for longer."""
    return TransferStudy(
        [('seg', FOLDER / 'camvid' / f'{name}.py') for name in preset.long.networks],
        {'seg': data / 'camvid'},
        long_options(preset.long),
        long_settings(out, preset, jobs),
        progress,
    )
