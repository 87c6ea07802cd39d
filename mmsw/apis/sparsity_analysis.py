"""What is pruned in a checkpoint: read with or without its config, worked out, written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw import json_file
from mmsw.analysis.sparsity.figures import SparsityAnalysis, analyze
from mmsw.analysis.sparsity.layers import MaskedNetwork, read_network
from mmsw.analysis.sparsity.slak import read_slak
from mmsw.checkpoint import (
    Recorded,
    fill_network,
    read_checkpoint,
    read_records,
    settle_zeros,
    to_state_dict,
    warn_of_empty_masks,
)
from mmsw.checkpoint.layouts import SLAK, layout_of
from mmsw.errors import CheckpointError, UsageError
from mmsw.models import ShiftWiseNet, SLaK
from mmsw.whole_file import write_text

from .backbone import build_backbone
from .config import load_config

JSON = 'sparsity.json'
TEXT = 'sparsity.txt'
PICTURE = 'sparsity.png'
DEFAULT_SHAPE = (512, 512)  # the crop of the ADE20K recipe


def analyze_sparsity(
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str] | Config | None = None,
    shape: Sequence[int] = DEFAULT_SHAPE,
) -> SparsityAnalysis:
    """Work out what the operators of a checkpoint keep, see ``docs/sparsity_analysis.md``.

    Args:
        checkpoint: File or its address: as the authors publish it, converted, of a pretraining, or
            of a training run of a whole model, whose heads are left out.
        config: Config file, or a config, whose backbone is built and filled from the file; the
            figures are then those of that backbone. ``None``: the tensors tell the network, and
            what they do not tell is taken from the file's own records, else assumed; the result
            says so.
        shape: ``(H, W)`` of an image in pixels, for the multiply-adds.

    Returns:
        The figures.

    Raises:
        UsageError: If the config or the shape is not as expected.
        CheckpointError: If the file is missing, damaged, folded or of another network, or
            does not fit the config.
    """
    cfg = None if config is None else load_config(config)
    source = os.fspath(checkpoint)
    contents = read_checkpoint(source)
    try:
        if cfg is None:
            network = _network_of_file(contents, source)
        else:
            network = _network_of_config(cfg, contents, source)
    except CheckpointError as error:
        raise CheckpointError(' '.join(str(error).split())) from error  # the loader's have lines
    try:
        return analyze(network, shape)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _network_of_file(contents: Any, source: str) -> MaskedNetwork:
    state = to_state_dict(contents, source)
    settle_zeros(state, contents, source)  # as loading it will
    warn_of_empty_masks(state, source)
    if layout_of(state) is SLAK:
        return read_slak(state, source)
    return read_network(state, source, read_records(contents, source))


def _network_of_config(cfg: Config, contents: Any, source: str) -> MaskedNetwork:
    net = _backbone(cfg)
    fill_network(net, contents, source)
    if isinstance(net, SLaK):
        return read_slak(net.state_dict(), source)
    recorded = Recorded('the config', net.big_kernels[: len(net.stages)], net.num_reps)
    return read_network(net.state_dict(), source, recorded)


def _backbone(cfg: Config) -> ShiftWiseNet | SLaK:
    name = cfg.filename or 'the config'
    if not (cfg.get('model') or {}).get('backbone'):
        raise UsageError(f'{name} has no model.backbone to fill from the checkpoint')
    net = build_backbone(cfg)
    if not isinstance(net, (ShiftWiseNet, SLaK)):
        raise UsageError(
            f'the backbone of {name} is a {type(net).__name__}, expected a ShiftWiseNet or SLaK'
        )
    return net


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise now if the plots could not be drawn or written later.

    Raises:
        UsageError: If the path is a file, or matplotlib is missing.
    """
    existing = next(p for p in (Path(folder), *Path(folder).absolute().parents) if p.exists())
    if not existing.is_dir():
        raise UsageError(f'{existing} is a file; --out {os.fspath(folder)} must be a folder')
    if find_spec('matplotlib') is None:
        raise UsageError('the plots need matplotlib: pip install matplotlib, or leave --out out')


def write_report(analysis: SparsityAnalysis, text: str, folder: str | os.PathLike[str]) -> None:
    """Write the figures, the text and the plots into a folder, each file whole or not at all.

    Args:
        analysis: The figures.
        text: Them as text, see :func:`mmsw.analysis.sparsity.table.sparsity_table`.
        folder: Made if it does not exist; files of the same names are replaced.

    Raises:
        UsageError: If it cannot be written to.
    """
    from mmsw.analysis.sparsity.plot import draw_sparsity

    folder = Path(folder)
    write_json(analysis, folder / JSON)
    write_text(folder / TEXT, text + '\n')
    draw_sparsity(analysis, folder / PICTURE)


def write_json(analysis: SparsityAnalysis, path: str | os.PathLike[str]) -> None:
    """Write every figure, exactly, see :func:`mmsw.json_file.write_json`."""
    json_file.write_json(Path(path), 'sparsity', analysis.to_dict())
