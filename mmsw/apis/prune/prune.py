"""Pruning a checkpoint at once: read, chosen, compared before and after, written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.checkpoint.trained import existing_file
from mmsw.errors import UsageError
from mmsw.random_state import preserved_random_state
from mmsw.sparsity import Pruning, attach_masks_of_zeros, set_masks

from ..config import config_name, load_config, register_toolbox
from .data_runs import DataRuns
from .network import TrainedNetwork
from .plan import check_not_sparser, check_plan, settings_of
from .report import PrunedLayer, PruneReport, kind_of
from .work import NetworkWork

# All of torch's kernels for 2:4 in half precision take multiples of these: CUTLASS asks for them,
# cuSPARSELt for less.
_SPARSE_ROWS, _SPARSE_COLUMNS = 32, 64


def prune_model(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    granularity: str,
    sparsity: float | None = None,
    block: Sequence[int] | None = None,
    scope: str | None = None,
    by: str = 'magnitude',
    per_layer: bool = True,
    include_all: bool = False,
    snip_batches: int = 1,
    seed: int = 0,
    evaluate: bool = True,
    shape: Sequence[int] | None = None,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = print,
) -> PruneReport:
    """Write a pruned copy of a trained checkpoint, of any network of a toolbox.

    The file is an ordinary checkpoint: pruned weights are zero in it, and a boolean ``X.mask``
    stands beside each pruned ``X.weight``, so that mmsw trains it sparse. Other programs find plain
    zeros.

    Args:
        config: Config file, or a config.
        checkpoint: File that a training run saved, of the whole model. What is pruned in it stays
            pruned, and counts towards the sparsity.
        path: File to write.
        granularity: ``'filter'``, ``'channel'``, ``'block'``, ``'N:M'`` (such as ``'2:4'``) or
            ``'weight'``, see ``docs/pruning.md``.
        sparsity: Share of the filters, channels, blocks or weights to prune, in ``[0, 1)``;
            ``None`` for ``'N:M'``, which says it.
        block: ``(R, C)`` of ``'block'``: filters, and consecutive weights of them.
        scope: Regular expression for names of weights; ``None``: all layers but the first one and
            those that predict.
        by: What goes first: the smallest ``'magnitude'``, what ``'snip'`` finds to change the loss
            least on training batches of the config, or ``'random'``.
        per_layer: Every layer prunes this share; ``False``: all layers together do.
        include_all: Without a scope, also prune the first and the last layers.
        snip_batches: Training batches that ``'snip'`` looks at.
        seed: Of ``'random'``, and of the batches of ``'snip'``.
        evaluate: Measure the model before and after on the validation data of the config, where it
            names some and they are there.
        shape: ``(H, W)`` of the image that multiply-adds are counted for; ``None``: as
            ``tools/get_flops.py``.
        cfg_options: Changes to the config, dotted key -> value.
        data_root: Folder of the data set.
        overwrite: Replace a file that is there.
        progress: Called with one line each time.

    Returns:
        What was pruned; its text is for a terminal.

    Raises:
        UsageError: If something asked for makes no sense, or data are missing.
        SparsityError: If nothing fits the granularity or scope, or the file is sparser already.
        mmsw.checkpoint.CheckpointError: If the checkpoint is damaged, folded, or of another config.
    """
    settings = settings_of(
        granularity,
        block,
        sparsity=sparsity,
        scope=scope,
        by=by,
        per_layer=per_layer,
        include_all=include_all,
        seed=seed,
    )
    path, filename = Path(path), existing_file(checkpoint, 'checkpoint')
    check_plan(path, overwrite, snip_batches, shape)
    cfg = load_config(config, cfg_options, data_root)
    toolbox = register_toolbox(cfg)
    if not cfg.get('model'):
        raise UsageError(f'{config_name(cfg)} has no model')
    progress(f'loading {filename}')
    with preserved_random_state(), tempfile.TemporaryDirectory(prefix='mmsw.') as folder:
        network = TrainedNetwork.load(cfg, toolbox, filename)
        attach_masks_of_zeros(network.model)
        pruning = Pruning(network.model, settings)
        check_not_sparser(pruning, filename)
        runs = DataRuns(cfg, network.model, Path(folder), evaluate)
        work = NetworkWork(network.model, shape, toolbox)
        start = _State.of(pruning, runs, work, progress)
        gradients = None
        if by == 'snip':
            progress(f'looking at {snip_batches} training batches')
            gradients = runs.gradients(pruning.layers, snip_batches, seed)
        set_masks(network.model, pruning.masks(gradients=gradients))
        end = _State.of(pruning, runs, work, progress)
    network.save(path, pruning=dict(asdict(settings), source=Path(filename).name))
    return PruneReport(
        path=path,
        settings=settings,
        layers=_layers(pruning, start, end, work.layers),
        left_out=pruning.left_out,
        frozen=tuple(n for n, la in pruning.layers.items() if not la.weight.requires_grad),
        macs=None if end.work is None else (end.work[0], start.work[1], end.work[1]),
        shape=work.shape,
        scores_before=start.scores,
        scores_after=end.scores,
        no_scores=runs.no_scores,
        sparse_kernels=_for_sparse_kernels(pruning),
    )


@dataclass(frozen=True)
class _State:
    """The network before or after.

    Attributes:
        units: Units kept by layer name.
        weights: Weights kept by layer name.
        work: Multiply-adds: of the network if nothing were pruned, and of its kept weights.
        scores: On the validation data, if measured.
    """

    units: dict[str, int]
    weights: dict[str, int]
    work: tuple[int, int] | None
    scores: dict[str, float] | None

    @classmethod
    def of(
        cls, pruning: Pruning, runs: DataRuns, work: NetworkWork, progress: Callable[[str], None]
    ) -> _State:
        """Count and measure."""
        if runs.no_scores is None:
            progress('measuring on the validation data')
        weights = {name: int(layer.mask.sum()) for name, layer in pruning.layers.items()}
        return cls(pruning.numbers(), weights, work.count(), runs.scores())


def _layers(
    pruning: Pruning, start: _State, end: _State, macs: Mapping[str, int]
) -> tuple[PrunedLayer, ...]:
    sizes = pruning.sizes()
    return tuple(
        PrunedLayer(
            name=name,
            kind=kind_of(layer),
            units=sizes[name],
            before=start.units[name],
            after=end.units[name],
            weights=layer.weight.numel(),
            weights_before=start.weights[name],
            weights_after=end.weights[name],
            macs=macs.get(name),
        )
        for name, layer in pruning.layers.items()
    )


def _for_sparse_kernels(pruning: Pruning) -> tuple[str, ...] | None:
    """Layers whose weight as a matrix the kernels of torch take, for the pattern that they know."""
    if pruning.settings.granularity != '2:4':
        return None
    shapes = {name: la.weight.flatten(1).shape for name, la in pruning.layers.items()}
    return tuple(
        name
        for name, (rows, columns) in shapes.items()
        if rows % _SPARSE_ROWS == 0 and columns % _SPARSE_COLUMNS == 0
    )
