"""A network's modules beside SLaK's, and what its shifts use, from a config or a name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw import json_file
from mmsw.analysis.complexity.closed_forms import Ratio, ratio_of
from mmsw.analysis.complexity.cover import StageCover, network_cover
from mmsw.analysis.complexity.modules import ModuleComparison, compare_modules
from mmsw.checkpoint import load_pretrained
from mmsw.checkpoint.trained import existing_file
from mmsw.errors import UsageError
from mmsw.models import ShiftWiseNet

from .backbone import build_backbone
from .config import config_name, load_config

RATIO_KERNELS = (51, 49, 47, 45, 13, 5)
DEFAULT_SHAPE = (224, 224)  # of the text's figures
DEFAULT_NETWORK = dict(arch='tiny', version='v1')  # of the text


def ratios(
    big_kernels: Sequence[int] = RATIO_KERNELS,
    small_kernel: int = 5,
    map_size: Sequence[int] | None = None,
) -> list[Ratio]:
    """The closed forms for some kernel sizes, see ``docs/complexity.md``.

    Args:
        big_kernels: Focus lengths M.
        small_kernel: Side N.
        map_size: ``(H, W)`` of a map, for the ratios with the border.

    Raises:
        UsageError: If a size is not a positive whole number, N is even, or N exceeds M.
    """
    size = None if map_size is None else tuple(map_size)
    try:
        return [ratio_of(big, small_kernel, size) for big in big_kernels]
    except ValueError as error:
        raise UsageError(str(error)) from error


def module_comparison(
    config: str | os.PathLike[str] | Config | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    cfg_options: dict[str, Any] | None = None,
    shape: Sequence[int] = DEFAULT_SHAPE,
    slak: str = 'tiny',
    width_factor: float = 1.3,
) -> ModuleComparison:
    """Put the modules of a network beside those of a SLaK, see ``docs/complexity.md``.

    Args:
        config: Config whose backbone is looked at; ``None``: SW-T v1, the network of the text.
        checkpoint: What it is filled from, for what is pruned.
        cfg_options: Changes to the config, dotted key -> value.
        shape: ``(H, W)`` of an image in pixels.
        slak: Size of the SLaK: ``'tiny'``, ``'small'`` or ``'base'``.
        width_factor: Its width, times the channels of ConvNeXt.

    Raises:
        UsageError: If the config or an argument is not as expected.
        mmsw.checkpoint.CheckpointError: If the checkpoint is damaged or does not fit.
    """
    net, name = _network(config, checkpoint, cfg_options)
    try:
        return compare_modules(net, shape, slak, width_factor, name)
    except ValueError as error:
        raise UsageError(f'{name}: {error}') from error


def cover_of(
    config: str | os.PathLike[str] | Config | None = None,
    cfg_options: dict[str, Any] | None = None,
    shape: Sequence[int] = DEFAULT_SHAPE,
) -> tuple[str, tuple[StageCover, ...]]:
    """Work out what the shifts of a network use, see ``docs/complexity.md``.

    Args:
        config: As :func:`module_comparison`.
        cfg_options: As there.
        shape: ``(H, W)`` of an image in pixels.

    Returns:
        Name of the network, and the figures by stage.

    Raises:
        UsageError: If the config or the shape is not as expected.
    """
    net, name = _network(config, None, cfg_options)
    try:
        return name, network_cover(net, shape)
    except ValueError as error:
        raise UsageError(f'{name}: {error}') from error


def _network(
    config: str | os.PathLike[str] | Config | None,
    checkpoint: str | os.PathLike[str] | None,
    cfg_options: dict[str, Any] | None,
) -> tuple[ShiftWiseNet, str]:
    if checkpoint is not None:
        checkpoint = existing_file(checkpoint, 'checkpoint')
    if config is None:
        if cfg_options:
            raise UsageError('--cfg-options changes settings of a config; name the config as well')
        net, name = ShiftWiseNet(**DEFAULT_NETWORK), 'SW-T v1, the network of the text'
    else:
        cfg = load_config(config, cfg_options)
        net, name = build_backbone(cfg), config_name(cfg)
        if not isinstance(net, ShiftWiseNet):
            raise UsageError(
                f'the backbone of {name} is a {type(net).__name__}, expected a ShiftWiseNet'
            )
    if checkpoint is not None:
        load_pretrained(net, checkpoint)
        name = f'{name}, {os.fspath(checkpoint)}'
    return net, name


def write_ratios(rows: Sequence[Ratio], path: str | os.PathLike[str]) -> None:
    """Write the ratios, see :func:`mmsw.json_file.write_json`."""
    json_file.write_json(
        Path(path), 'complexity_ratios', dict(ratios=[dict(vars(row)) for row in rows])
    )


def write_comparison(comparison: ModuleComparison, path: str | os.PathLike[str]) -> None:
    """Write the comparison, see :func:`mmsw.json_file.write_json`."""
    json_file.write_json(Path(path), 'complexity_modules', comparison.to_dict())


def write_cover(
    name: str, stages: Sequence[StageCover], shape: Sequence[int], path: str | os.PathLike[str]
) -> None:
    """Write what the shifts use, see :func:`mmsw.json_file.write_json`."""
    content = dict(network=name, shape=list(shape), stages=[stage.to_dict() for stage in stages])
    json_file.write_json(Path(path), 'complexity_cover', content)
