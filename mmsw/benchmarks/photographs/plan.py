"""What the benchmark on real photographs trains: networks, sizes, lengths, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..transfer.plan import AS_CONFIGURED, TransferSettings

# Shares of the small filters that are pruned, in per cent.
SPARSITIES = (40, 70, 90)
SHIFT_WISE = 'sw_mini_camvid'
PRUNED = {
    f'sw_mini_{method}{share}_camvid': share
    for method in ('static', 'dynamic')
    for share in SPARSITIES
}
OTHERS = (
    'equ_slak_mini_camvid',
    'slak_mini_camvid',
    'r18_narrow_camvid',
    'convnext_mini_camvid',
    'mit_mini_camvid',
)
NETWORKS = (SHIFT_WISE, *PRUNED, *OTHERS)
LONG = 'sw_mini_dynamic40_camvid'  # the network of the run at full size
# The networks of the README's table.
HEADLINE = (
    SHIFT_WISE,
    'sw_mini_dynamic70_camvid',
    'sw_mini_dynamic90_camvid',
    'slak_mini_camvid',
    'r18_narrow_camvid',
    'convnext_mini_camvid',
    'mit_mini_camvid',
)
DETECTOR = 'retinanet_sw_mini_bccd'
SPARSE = ('sparse', 'sparse-unmasked')  # starts that come from a pruned network
REOPENED = 90  # the sparsity whose masks are opened again in one of the starts


@dataclass(frozen=True)
class Preset:
    """How much is trained.

    Attributes:
        image_scale: Width and height that training and test images of the comparison get, in
            pixels; None for the size that they have. Scores are always computed at the size of
            the label maps, 480 x 360.
        iterations: Of a run of the comparison.
        seeds: Of the comparison.
        transfer_iterations: Of a fine-tuning.
        transfer_seeds: Of the fine-tuning.
        long_iterations: Of the one run at full size.
    """

    image_scale: tuple[int, int] | None
    iterations: int
    seeds: int
    transfer_iterations: int
    transfer_seeds: int
    long_iterations: int


PRESETS = {
    'standard': Preset((240, 180), 750, 3, 200, 5, 10000),
    'quick': Preset((120, 90), 4, 1, 2, 1, 4),
    'full': Preset(None, 24000, 5, 6000, 5, 60000),
}
_IN_ONE_PROCESS = {
    f'{loader}_dataloader.{key}': value
    for loader in ('train', 'val', 'test')
    for key, value in (('num_workers', 0), ('persistent_workers', False))
}


def comparison_options(preset: Preset) -> dict[str, Any]:
    """Changes to the configs of the comparison: its size, and the test images to score."""
    size = {} if preset.image_scale is None else {'own_data.image_scale': preset.image_scale}
    return {**size, **on_test_images()}


def on_test_images() -> dict[str, Any]:
    """Changes to a config of CamVid so that a benchmark scores the test images.

    Nothing is chosen by these scores: what counts is the end of each run.
    """
    return {
        'own_data.val.images': 'test',
        'own_data.val.labels': 'testannot',
        **_IN_ONE_PROCESS,
    }


def on_test_boxes() -> dict[str, Any]:
    """The same for BCCD."""
    return {'own_data.val.annotations': 'test.json', **_IN_ONE_PROCESS}


def comparison_settings(out: Path, preset: Preset, jobs: int) -> TransferSettings:
    """Of the comparison from random values."""
    return TransferSettings(
        out=out / 'scratch',
        starts=(AS_CONFIGURED,),
        seeds=preset.seeds,
        budgets={'seg': preset.iterations},
        evaluations=2,
        jobs=jobs,
    )


def long_settings(out: Path, preset: Preset) -> TransferSettings:
    """Of the run at full size, which saves its state ten times."""
    return TransferSettings(
        out=out / 'long',
        starts=(AS_CONFIGURED,),
        seeds=1,
        budgets={'seg': preset.long_iterations},
        evaluations=min(10, preset.long_iterations),
    )


def pretrained_network(share: int) -> str:
    """The network of the comparison whose first run a start with that share pruned comes from."""
    return f'sw_mini_dynamic{share}_camvid' if share else SHIFT_WISE


def pretrained_file(out: Path, share: int) -> Path:
    """Where its weights lie."""
    run = f'seg-{pretrained_network(share)}-{AS_CONFIGURED}-seed0'
    return out / 'scratch' / 'runs' / run / 'final.pth'


def transfer_settings(out: Path, preset: Preset, jobs: int) -> dict[int, TransferSettings]:
    """Of the fine-tuning, one for each sparsity: those of the first hold what all share."""
    return {share: _of_share(out, preset, jobs, share) for share in SPARSITIES}


def _of_share(out: Path, preset: Preset, jobs: int, share: int) -> TransferSettings:
    starts: Sequence[str] = ('sparse',)
    files = {('sparse', ''): pretrained_file(out, share)}
    if share == SPARSITIES[0]:
        starts = ('scratch', 'dense', *starts)
        files['dense', ''] = pretrained_file(out, 0)
    if share == REOPENED:
        starts = (*starts, 'sparse-unmasked')
    return TransferSettings(
        out=out / f'transfer-{share}',
        starts=tuple(starts),
        seeds=preset.transfer_seeds,
        budgets={'det': preset.transfer_iterations},
        evaluations=1,
        pretrained=files,
        jobs=jobs,
        sparsity=share / 100,
    )
