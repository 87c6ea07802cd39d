"""Receptive fields of the backbones of configs: built, filled, measured, reported."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmsw import json_file
from mmsw.analysis import effective_receptive_field
from mmsw.analysis.receptive_field import (
    Square,
    calibrate_norms,
    closed_scales,
    high_contribution_squares,
    log_scores,
    open_scales,
)
from mmsw.analysis.receptive_field.plot import draw_receptive_fields
from mmsw.analysis.receptive_field.table import squares_table
from mmsw.engine.image_channels import image_channels
from mmsw.errors import UsageError
from mmsw.random_state import preserved_random_state
from mmsw.text_table import wrapped
from mmsw.wording import listed, short

from .backbone import build_backbone, draw_weights, fill_backbone
from .complexity_report import check_output
from .config import config_name, load_config
from .square_images import normalised, read_squares

PICTURES = ('.svg', '.png')
DEFAULT_SIZE = 1024  # of RepLKNet's images
_LEAST_MAP = 3  # a centre with neighbours
_INTERVAL = 5.0  # seconds between lines of progress


@dataclass(frozen=True)
class Contender:
    """A network to measure.

    Attributes:
        name: Of its panel and its row.
        config: Config file, the name of one of this package, or a config.
        checkpoint: File or address that fills the backbone; ``None`` for random weights.
    """

    name: str
    config: str | os.PathLike[str] | Config
    checkpoint: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class MeasuredField:
    """The receptive field of one network.

    Attributes:
        contender: What was measured.
        scores: Float64 ``[H, W]``, see :func:`mmsw.analysis.effective_receptive_field`.
        num_images: Number of images.
        seconds: What the measurement took.
        opened: Number of scales that were closed at the start, and were set to 1.
        calibrated: Number of batch norms that got the statistics of the images.
        closed: Names of the scales that are closed.
    """

    contender: Contender
    scores: np.ndarray
    num_images: int
    seconds: float
    opened: int = 0
    calibrated: int = 0
    closed: tuple[str, ...] = ()

    @property
    def squares(self) -> dict[str, dict[float, Square]]:
        """Kind of the scores -> share -> the square that holds it."""
        return {
            'scores': high_contribution_squares(self.scores),
            'log_scores': high_contribution_squares(log_scores(self.scores)),
        }


@dataclass(frozen=True)
class FieldSettings:
    """How receptive fields are measured.

    Attributes:
        size: Side of the square images in pixels.
        num_images: Most images to use.
        stage: Index of the map among those that the backbone gives.
        part: What of the gradient counts.
        seed: Of random weights.
        open_scales: Set what keeps residual branches closed to 1, where weights are random.
        calibrate: Give batch norms the statistics of the images, where weights are random.
        device: Where to compute.
        cfg_options: Changes to every config, dotted key -> value.
    """

    size: int = DEFAULT_SIZE
    num_images: int = 50
    stage: int = -1
    part: str = 'positive'
    seed: int = 0
    open_scales: bool = False
    calibrate: bool = False
    device: str = 'cpu'
    cfg_options: dict[str, Any] = field(default_factory=dict)


def measure_receptive_fields(
    contenders: Sequence[Contender],
    images: Sequence[str | os.PathLike[str]],
    settings: FieldSettings | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[MeasuredField]:
    """Measure the receptive fields of the backbones of configs, see ``docs/receptive_field.md``.

    All networks are built and filled, and all images read, before the first is measured. A backbone
    needs no head and no data. Images are resized to a square, and normalised as the config of each
    network says.

    Args:
        contenders: The networks.
        images: Image files, folders or patterns; the first in the order of their names are used.
        settings: How to measure.
        progress: Called with a line of text now and then.

    Returns:
        The fields, in the order of the networks.

    Raises:
        UsageError: If a config, an option or a size cannot be used.
        mmsw.errors.DataError: If an image is missing or damaged.
        mmsw.errors.CheckpointError: If a checkpoint is damaged or of another network.
    """
    settings = FieldSettings() if settings is None else settings
    _check(contenders, settings)
    built = [_build(contender, settings) for contender in contenders]
    channels = sorted({image_channels(net) for _, net, *_ in built})
    photos = {
        number: read_squares(images, settings.size, settings.num_images, number)
        for number in channels
    }
    measured = []
    for contender, (cfg, net, opened, closed) in zip(contenders, built, strict=True):
        pixels = photos[image_channels(net)]
        start = time.perf_counter()
        with _explained(contender.name, settings.size):
            calibrated = 0
            if settings.calibrate and contender.checkpoint is None:
                prepared = _prepared(f'{contender.name}, batch norms', cfg, pixels, progress)
                batches = (image[None].to(settings.device) for image in prepared)
                calibrated = calibrate_norms(net, batches)
            prepared = _prepared(contender.name, cfg, pixels, progress)
            scores, _ = effective_receptive_field(
                net, prepared, settings.stage, part=settings.part, least_map=_LEAST_MAP
            )
        seconds = time.perf_counter() - start
        number = f'{len(pixels)} image{"" if len(pixels) == 1 else "s"}'
        progress(f'{contender.name}: {number} in {seconds:.1f} s')
        changes = (opened, calibrated, closed)
        measured.append(MeasuredField(contender, scores, len(pixels), seconds, *changes))
    return measured


def _check(contenders: Sequence[Contender], settings: FieldSettings) -> None:
    if not contenders:
        raise UsageError('no config: name at least one')
    names = [contender.name for contender in contenders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f'two networks are called {twice[0]!r}: write NAME=CONFIG to tell them apart'
        )
    for name, value in (('size', settings.size), ('num_images', settings.num_images)):
        if value < 1:
            raise UsageError(f'{name} must be at least 1, got {value}')
    try:
        torch.empty(0, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'device {settings.device!r} cannot be used ({short(error)})') from error


def _build(
    contender: Contender, settings: FieldSettings
) -> tuple[Config, nn.Module, int, tuple[str, ...]]:
    """Config, backbone, how many of its scales were opened, which are closed."""
    cfg = load_config(contender.config, settings.cfg_options)
    opened = 0
    with preserved_random_state(settings.seed):
        net = build_backbone(cfg)
        if contender.checkpoint is None:
            draw_weights(net)
    if contender.checkpoint is not None:
        fill_backbone(net, contender.checkpoint)
    elif settings.open_scales:
        opened = open_scales(net)
    closed = tuple(closed_scales(net)) if contender.checkpoint is None else ()
    return cfg, net.to(settings.device), opened, closed


def _prepared(
    what: str, cfg: Config, images: Sequence[np.ndarray], progress: Callable[[str], None]
) -> Iterator[Tensor]:
    """Normalised images; how far their use has come is told now and then."""
    begin = last = time.perf_counter()
    for number, image in enumerate(images):
        now = time.perf_counter()
        if number and now - last > _INTERVAL:
            last = now
            left = (len(images) - number) * (now - begin) / number
            progress(f'{what}: {number} of {len(images)} images, about {left:.0f} s left')
        yield normalised(image, cfg)


@contextmanager
def _explained(name: str, size: int) -> Iterator[None]:
    """Inside, what a network does not take becomes one line that names it."""
    try:
        yield
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UsageError(
            f'{name}: the receptive field cannot be measured at {size} x {size}: {error}'
        ) from error


def receptive_field_text(measured: Sequence[MeasuredField]) -> str:
    """The squares of all networks as a table, and what a reader must know of random weights."""
    squares = {
        kind: {each.contender.name: each.squares[kind] for each in measured}
        for kind in measured[0].squares
    }
    notes = []
    for each in measured:
        name = each.contender.name
        if each.closed:
            notes.append(
                f'{name}: random weights, and {len(each.closed)} scales keep its residual branches '
                f'closed ({listed(each.closed, 2)}): this is the field of its stem and '
                'downsampling. --open-branches sets them to 1'
            )
        elif each.contender.checkpoint is None:
            changes = [
                (each.opened, 'scales that begin closed are set to 1'),
                (each.calibrated, 'batch norms have the statistics of the images'),
            ]
            told = [f', {number} {change}' for number, change in changes if number]
            notes.append(f'{name}: random weights{"".join(told)}')
        else:
            notes.append(f'{name}: {os.fspath(each.contender.checkpoint)}')
    return '\n'.join([squares_table(squares), '', *map(wrapped, notes)])


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise now if the picture could not be drawn or written later.

    Raises:
        UsageError: If its ending is unknown, its folder does not exist, or matplotlib is missing.
    """
    if Path(path).suffix.lower() not in PICTURES:
        raise UsageError(f'{os.fspath(path)} must end with {" or ".join(PICTURES)}')
    check_output(path)
    if find_spec('matplotlib') is None:
        raise UsageError('the picture needs matplotlib: pip install matplotlib')


def write_picture(measured: Sequence[MeasuredField], path: str | os.PathLike[str]) -> None:
    """Write the picture, whole or not at all, see :func:`draw_receptive_fields`.

    Raises:
        UsageError: If it cannot be written there.
    """
    try:
        draw_receptive_fields({each.contender.name: each.scores for each in measured}, path)
    except OSError as error:
        raise UsageError(f'{os.fspath(path)} cannot be written: {error}') from error


def write_json(
    measured: Sequence[MeasuredField],
    settings: FieldSettings,
    path: str | os.PathLike[str],
) -> None:
    """Write every square and how it was measured, see :func:`mmsw.json_file.write_json`."""
    networks = [
        dict(
            name=each.contender.name,
            config=_told(each.contender.config),
            checkpoint=_told(each.contender.checkpoint),
            seed=settings.seed if each.contender.checkpoint is None else None,
            opened_scales=each.opened,
            calibrated_norms=each.calibrated,
            closed_scales=list(each.closed),
            num_images=each.num_images,
            seconds=each.seconds,
            squares={
                kind: {str(share): square._asdict() for share, square in found.items()}
                for kind, found in each.squares.items()
            },
        )
        for each in measured
    ]
    content = dict(
        size=settings.size,
        stage=settings.stage,
        part=settings.part,
        networks=networks,
    )
    json_file.write_json(Path(path), 'receptive_field', content)


def _told(file: str | os.PathLike[str] | Config | None) -> str | None:
    if isinstance(file, Config):
        return config_name(file)
    return None if file is None else os.fspath(file)
