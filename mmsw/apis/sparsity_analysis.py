"""What is pruned in a checkpoint: read with or without its config, worked out, written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw import json_file
from mmsw.analysis.sparsity.any_comparison import (
    NetworkComparison,
    compare_networks,
    network_comparison_table,
)
from mmsw.analysis.sparsity.any_network import NetworkSparsity, read_any_network
from mmsw.analysis.sparsity.any_network_table import network_table
from mmsw.analysis.sparsity.comparison import SparsityComparison, compare
from mmsw.analysis.sparsity.comparison_text import comparison_table
from mmsw.analysis.sparsity.figures import SparsityAnalysis, analyze
from mmsw.analysis.sparsity.layers import MaskedNetwork, read_network
from mmsw.analysis.sparsity.slak import read_slak
from mmsw.analysis.sparsity.table import sparsity_table
from mmsw.checkpoint import (
    Recorded,
    fill_network,
    read_checkpoint,
    read_records,
    settle_zeros,
    to_state_dict,
    warn_of_empty_masks,
)
from mmsw.checkpoint.folded import is_folded
from mmsw.checkpoint.layouts import LAYOUTS, SLAK, is_merged_slak, layout_of
from mmsw.checkpoint.release import tensors_of
from mmsw.errors import CheckpointError, UsageError
from mmsw.models import ShiftWiseNet, SLaK
from mmsw.whole_file import write_text

from .backbone import build_backbone
from .config import load_config

JSON = 'sparsity.json'
TEXT = 'sparsity.txt'
PICTURE = 'sparsity.png'
COMPARISON = 'sparsity_comparison'  # its files have the endings of the others
DEFAULT_SHAPE = (512, 512)  # the crop of the ADE20K recipe


def analyze_sparsity(
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str] | Config | None = None,
    shape: Sequence[int] = DEFAULT_SHAPE,
) -> SparsityAnalysis | NetworkSparsity:
    """Work out what is pruned in a checkpoint, see ``docs/sparsity_analysis.md``.

    Args:
        checkpoint: File or its address. Of a shift-wise network or a SLaK: as the authors publish
            it, converted, of a pretraining, or of a training run of a whole model, whose heads are
            left out. Of any other network: its state dict, bare or in the file of a training.
        config: Config file, or a config, whose backbone is built and filled from the file; the
            figures are then those of that backbone. ``None``: the tensors tell the network, and
            what they do not tell is taken from the file's own records, else assumed; the result
            says so. For shift-wise networks and SLaK only.
        shape: ``(H, W)`` of an image in pixels, for the multiply-adds of these.

    Returns:
        The figures: those of the operators, or of the layers of any other network.

    Raises:
        UsageError: If the config or the shape is not as expected.
        CheckpointError: If the file is missing, damaged, folded or without layers, or does not fit
            the config.
    """
    cfg = None if config is None else load_config(config)
    source = os.fspath(checkpoint)
    contents = read_checkpoint(source)
    if cfg is None and not _has_operators(contents, source):
        return read_any_network(contents, source)
    network = _network(contents, source, cfg)
    try:
        return analyze(network, shape)
    except ValueError as error:
        raise UsageError(str(error)) from error


def compare_sparsity(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    config: str | os.PathLike[str] | Config | None = None,
) -> SparsityComparison | NetworkComparison:
    """Put two checkpoints of one network against each other: before and after fine-tuning.

    Args:
        first: File or its address, as for :func:`analyze_sparsity`. A backbone alone is compared
            with the backbone of a whole model.
        second: The same.
        config: Config of both, as there.

    Returns:
        The figures.

    Raises:
        UsageError: If the config is not as expected, or the files are of different networks.
        CheckpointError: As :func:`analyze_sparsity`.
    """
    cfg = None if config is None else load_config(config)
    sources = [os.fspath(first), os.fspath(second)]
    files = [(read_checkpoint(source), source) for source in sources]
    try:
        if cfg is None and not any(_has_operators(*file) for file in files):
            return compare_networks(*(read_any_network(*file) for file in files))
        return compare(*(_network(*file, cfg) for file in files))
    except ValueError as error:
        raise UsageError(str(error)) from error


def other_layers(checkpoint: str | os.PathLike[str]) -> NetworkSparsity | None:
    """Ordinary layers of a shift-wise network or SLaK with heads, where any of them is pruned.

    Args:
        checkpoint: File, as for :func:`analyze_sparsity`.

    Returns:
        All layers but those of the operators; ``None`` if nothing is pruned in them.

    Raises:
        CheckpointError: As :func:`analyze_sparsity`.
    """
    found = _without_operators(os.fspath(checkpoint))
    return found if found.total.sparse else None


def compare_other_layers(
    first: str | os.PathLike[str], second: str | os.PathLike[str]
) -> NetworkComparison | None:
    """Put the layers of :func:`other_layers` of two checkpoints against each other.

    Args:
        first: File, as for :func:`compare_sparsity`.
        second: The same.

    Returns:
        The figures; ``None`` if nothing is pruned in these layers of either file.

    Raises:
        UsageError: If the files have none of these layers in common.
        CheckpointError: As :func:`analyze_sparsity`.
    """
    before, after = (_without_operators(os.fspath(file)) for file in (first, second))
    if not (before.total.sparse or after.total.sparse):
        return None
    try:
        return compare_networks(before, after)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _without_operators(source: str) -> NetworkSparsity:
    found = read_any_network(read_checkpoint(source), source)
    return found.only(lambda layer: not _is_operator(f'{layer.name}.weight'))


def sparsity_text(
    figures: SparsityAnalysis | NetworkSparsity | SparsityComparison | NetworkComparison,
) -> str:
    """Figures of any kind as text for a terminal."""
    if isinstance(figures, NetworkSparsity):
        return network_table(figures)
    if isinstance(figures, NetworkComparison):
        return network_comparison_table(figures)
    if isinstance(figures, SparsityComparison):
        return comparison_table(figures)
    return sparsity_table(figures)


def _is_operator(key: str) -> bool:
    return any(layout.anywhere.match(key) for layout in LAYOUTS)


def _has_operators(contents: Any, source: str) -> bool:
    """Whether a file holds shift-wise layers or large kernels of SLaK, in whichever form."""
    state = tensors_of(contents, source)
    return is_folded(state) or is_merged_slak(state) or any(map(_is_operator, state))


def _network(contents: Any, source: str, cfg: Config | None) -> MaskedNetwork:
    try:
        if cfg is None:
            return _network_of_file(contents, source)
        return _network_of_config(cfg, contents, source)
    except CheckpointError as error:
        raise CheckpointError(' '.join(str(error).split())) from error  # the loader's have lines


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
            f'the backbone of {name} is a {type(net).__name__}, expected a ShiftWiseNet or SLaK; '
            'of other networks the tensors tell all: leave the config out'
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


def write_report(
    figures: SparsityAnalysis | NetworkSparsity, text: str, folder: str | os.PathLike[str]
) -> None:
    """Write the figures, the text and the plots into a folder, each file whole or not at all.

    Args:
        figures: The figures.
        text: Them as text, see :func:`sparsity_text`.
        folder: Made if it does not exist; files of the same names are replaced.

    Raises:
        UsageError: If it cannot be written to.
    """
    from mmsw.analysis.sparsity.any_network_plot import draw_network
    from mmsw.analysis.sparsity.plot import draw_sparsity

    folder = Path(folder)
    write_json(figures, folder / JSON)
    write_text(folder / TEXT, text + '\n')
    draw = draw_network if isinstance(figures, NetworkSparsity) else draw_sparsity
    draw(figures, folder / PICTURE)


def write_comparison(
    comparison: SparsityComparison | NetworkComparison, text: str, folder: str | os.PathLike[str]
) -> None:
    """Write a comparison into a folder, as :func:`write_report` does.

    Args:
        comparison: The figures.
        text: Them as text, see :func:`sparsity_text`.
        folder: Made if it does not exist; files of the same names are replaced.

    Raises:
        UsageError: If it cannot be written to.
    """
    from mmsw.analysis.sparsity.any_network_plot import draw_networks
    from mmsw.analysis.sparsity.comparison_plot import draw_comparison

    folder = Path(folder)
    write_json(comparison, folder / f'{COMPARISON}.json')
    write_text(folder / f'{COMPARISON}.txt', text + '\n')
    draw = draw_networks if isinstance(comparison, NetworkComparison) else draw_comparison
    draw(comparison, folder / f'{COMPARISON}.png')


def write_json(
    figures: SparsityAnalysis | NetworkSparsity | SparsityComparison | NetworkComparison,
    path: str | os.PathLike[str],
) -> None:
    """Write every figure, exactly, see :func:`mmsw.json_file.write_json`."""
    json_file.write_json(Path(path), _KINDS[type(figures)], figures.to_dict())


_KINDS = {
    SparsityAnalysis: 'sparsity',
    NetworkSparsity: 'network_sparsity',
    SparsityComparison: COMPARISON,
    NetworkComparison: f'network_{COMPARISON}',
}
