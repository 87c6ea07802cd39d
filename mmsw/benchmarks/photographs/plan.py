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
LONG = 'sw_mini_dynamic40_camvid'  # the network of the run at full size on a CPU
# The networks of the README's table, and of the runs at full size on a GPU.
HEADLINE = (
    SHIFT_WISE,
    'sw_mini_dynamic40_camvid',
    'sw_mini_dynamic90_camvid',
    'equ_slak_mini_camvid',
    'r18_narrow_camvid',
    'convnext_mini_camvid',
    'mit_mini_camvid',
)
DETECTOR = 'retinanet_sw_mini_bccd'
SPARSE = ('sparse', 'sparse-unmasked')  # starts that come from a pruned network
REOPENED = 90  # the sparsity whose masks are opened again in one of the starts


@dataclass(frozen=True)
class FullSize:
    """Runs on images at their own size, one seed each.

    Attributes:
        networks: Which.
        iterations: Of a run.
        batch_size: Crops of an iteration.
        crop_size: Height and width of a crop, in pixels.
        workers: Processes that read the images of a run; without any, a run that was stopped ends
            with the same weights as one that was not.
        evaluations: Of a run, which saves its state as often.
    """

    networks: tuple[str, ...]
    iterations: int
    batch_size: int = 4
    crop_size: tuple[int, int] = (160, 224)
    workers: int = 0
    evaluations: int = 10


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
        long: The runs at full size.
    """

    image_scale: tuple[int, int] | None
    iterations: int
    seeds: int
    transfer_iterations: int
    transfer_seeds: int
    long: FullSize


_ON_A_GPU = FullSize(
    HEADLINE,
    iterations=2500,
    batch_size=16,
    crop_size=(320, 448),
    workers=2,
    evaluations=4,
)
PRESETS = {
    'standard': Preset((240, 180), 750, 3, 200, 5, FullSize((LONG,), 10000)),
    'quick': Preset((120, 90), 4, 1, 2, 1, FullSize((LONG,), 4, evaluations=4)),
    'full': Preset(None, 24000, 5, 6000, 5, _ON_A_GPU),
}


def comparison_options(preset: Preset) -> dict[str, Any]:
    """Changes to the configs of the comparison: its size, and the test images to score."""
    size = {} if preset.image_scale is None else {'own_data.image_scale': preset.image_scale}
    return {**size, **on_test_images()}


def on_test_images(workers: int = 0) -> dict[str, Any]:
    """Changes to a config of CamVid so that a benchmark scores the test images.

    Nothing is chosen by these scores: what counts is the end of each run.

    Args:
        workers: Processes that read images.
    """
    return {
        'own_data.val.images': 'test',
        'own_data.val.labels': 'testannot',
        **_read_by(workers),
    }


def on_test_boxes() -> dict[str, Any]:
    """The same for BCCD."""
    return {'own_data.val.annotations': 'test.json', **_read_by(0)}


def long_options(long: FullSize) -> dict[str, Any]:
    """Changes to the configs of the runs at full size: their crops, and the test images.

    The loss is a sum, so its factor follows the number of pixels of a batch.
    """
    height, width = long.crop_size
    return {
        'own_data.batch_size': long.batch_size,
        'own_data.crop_size': long.crop_size,
        'model.decode_head.loss_decode.loss_weight': 1 / (long.batch_size * height * width),
        **on_test_images(long.workers),
    }


def _read_by(workers: int) -> dict[str, Any]:
    return {
        f'{loader}_dataloader.{key}': value
        for loader in ('train', 'val', 'test')
        for key, value in (('num_workers', workers), ('persistent_workers', workers > 0))
    }


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


def long_settings(out: Path, preset: Preset, jobs: int) -> TransferSettings:
    """Of the runs at full size."""
    return TransferSettings(
        out=out / 'long',
        starts=(AS_CONFIGURED,),
        seeds=1,
        budgets={'seg': preset.long.iterations},
        evaluations=preset.long.evaluations,
        jobs=jobs if len(preset.long.networks) > 1 else 1,
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
