"""What a config's model costs: built, counted, as a table and as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmsw import json_file
from mmsw.analysis.complexity import Complexity, Cost, complexity, kernel_work
from mmsw.analysis.complexity.kernel_counts import DEFAULT_BLOCK
from mmsw.analysis.complexity.kernel_table import kernel_table
from mmsw.checkpoint.trained import existing_file
from mmsw.errors import UsageError
from mmsw.text_table import text_table
from mmsw.wording import MAC_UNITS, mac_power

from .config import config_name, load_config, register_toolbox
from .counted_checkpoint import fill_counted
from .model_building import build_model

# What the published figures are for, by toolbox.
SHAPES = {'mmseg': (512, 2048), 'mmdet': (1280, 800), 'mmpretrain': (224, 224)}
_COLUMNS = ('parameters', 'trainable', 'not pruned', 'dense', 'used', 'naive', "release's")


def count_complexity(
    config: str | os.PathLike[str] | Config,
    shape: Sequence[int] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    cfg_options: dict[str, Any] | None = None,
    *,
    proposals: int = 1000,
    mask_proposals: int = 100,
    deploy: bool = False,
    block: tuple[int, int] = DEFAULT_BLOCK,
) -> Complexity:
    """Count parameters and multiply-adds of the model of a config, see ``docs/complexity.md``.

    The model is built as the config says, with SyncBN where it asks for it, and needs no data. A
    checkpoint matters only for what is pruned in it; with one, the result also says what the
    kernels of several kinds save, unless the folded form is counted.

    Args:
        config: Config file, or a config. Its ``default_scope`` says which toolbox it is for.
        shape: ``(H, W)`` of the image in pixels, rounded up to what a detector pads to; with other
            channels than the backbone takes ``(channels, H, W)``. ``None`` for 512 x 2048
            (segmentation), 1280 x 800 (detection) or 224 x 224 (mmpretrain).
        checkpoint: File that a training run saved, or one of the backbone alone, of any network.
            Exact zeros of its layers count as pruned, as masks do.
        cfg_options: Changes to the config, dotted key -> value.
        proposals: Boxes for the box heads of a two-stage detector.
        mask_proposals: Boxes for its mask heads.
        deploy: Count the folded form of the shift-wise layers.
        block: Filters and inputs of the blocks that a kernel skips, see :class:`KernelWork`.

    Returns:
        The counts.

    Raises:
        UsageError: If the config, a file or an argument is not as expected, or the model does not
            run on this shape.
        mmsw.checkpoint.CheckpointError: If the checkpoint is damaged or does not fit.
    """
    if checkpoint is not None:
        checkpoint = existing_file(checkpoint, 'checkpoint')
    cfg = load_config(config, cfg_options)
    scope = register_toolbox(cfg)
    name = config_name(cfg)
    if not cfg.get('model'):
        raise UsageError(f'{name} has no model')
    if shape is None and scope not in SHAPES:
        raise UsageError(
            f'{name} has default_scope={scope!r}: say for which images with --shape H W'
        )
    with DefaultScope.overwrite_default_scope(scope):
        model = build_model(cfg)
        found = None if checkpoint is None else fill_counted(model, checkpoint, deploy)
        if deploy:
            _fold(model, name)
        shape = padded(SHAPES[scope] if shape is None else shape, model)
        try:
            result = complexity(model, shape, proposals, min(mask_proposals, proposals))
            if found is None or deploy:
                return result
            return replace(result, kernels=kernel_work(model, result, block, found))
        except (ValueError, RuntimeError) as error:
            sizes = ' x '.join(map(str, shape))
            raise UsageError(f'{name} cannot be counted at {sizes}: {error}') from error


def _fold(model: nn.Module, name: str) -> None:
    if not hasattr(getattr(model, 'backbone', None), 'switch_to_deploy'):
        raise UsageError(f'the backbone of {name} has no folded form; leave --deploy out')
    model.backbone.switch_to_deploy()


def padded(shape: Sequence[int], model: nn.Module) -> tuple[int, ...]:
    """The shape of the batch: detectors pad height and width of images to a multiple."""
    step = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    return (*shape[:-2], *(-(-size // step) * step for size in shape[-2:]))


def complexity_table(result: Complexity, per_module: bool = False) -> str:
    """The counts as text: parameters, and multiply-adds in units of 10^9, or 10^6 for small nets.

    Args:
        result: The counts.
        per_module: A row for every module instead of one for every part.
    """
    rows = dict(result.modules if per_module else result.parts, total=result.total)
    power = mac_power(result.macs_dense)
    cells = [(name or '(itself)', *_cells(cost, power)) for name, cost in rows.items()]
    channels, height, width = result.shape
    notes = [f'input {channels} x {height} x {width}; multiply-adds in {MAC_UNITS[power]}']
    if result.proposals is not None:
        boxes, masks = result.proposals
        notes.append(f'RoI heads run on {boxes} boxes' + (f', mask heads on {masks}' * bool(masks)))
    if result.not_run:
        notes.append(f'not called in a forward pass: {", ".join(result.not_run)}')
    text = '\n'.join([text_table(('', *_COLUMNS), cells), *notes])
    return text if result.kernels is None else f'{text}\n\n{kernel_table(result, per_module)}'


def _cells(cost: Cost, power: int) -> list[str]:
    numbers = (cost.parameters, cost.trainable, cost.parameters_used)
    work = (cost.macs_dense, cost.macs_used, cost.macs_naive, cost.release_count)
    return [
        *(f'{number:,}' for number in numbers),
        *(f'{number / 10**power:,.3f}' for number in work),
    ]


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise now if a file could not be written later.

    Raises:
        UsageError: If the path is a folder, or its folder does not exist.
    """
    if Path(path).is_dir():
        raise UsageError(f'{os.fspath(path)} is a folder, expected a file to write')
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f'the folder of {os.fspath(path)} does not exist; make it first')


def write_json(result: Complexity, path: str | os.PathLike[str]) -> None:
    """Write every count, exactly, see :func:`mmsw.json_file.write_json`."""
    json_file.write_json(Path(path), 'complexity', result.to_dict())
