"""What a training of the benchmark does beside learning: watch masks, verify what is pruned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from torch import Tensor, nn, ones_like

from mmsw.checkpoint import load_checkpoint_file
from mmsw.engine.model_wrapper import unwrapped
from mmsw.sparsity import lost_zeros, masked_layers, masks, report
from mmsw.sparsity.allocate import num_kept

from ..digests import tensor_digest
from ..hook import MeasuringHook, finite_mean, generators_digest
from ..runs import FINAL

_SCORE = 'accuracy'  # in what the evaluator gives
_UPDATER = 'DynamicSparsityHook'
_LAST_LOSSES = 10


class SparsityBenchmarkHook(MeasuringHook):
    """Compare the masks of the start and the end, and time what sets them.

    It comes first among the hooks, so that it sees the model before masks are set, and so that the
    time from one call to the next holds a whole iteration with everything that hooks do in it.

    Args:
        sparsity: Share of the small kernels that is to be pruned; 0 for a dense run.
        granularity: What is counted: ``'filter'`` or ``'weight'``.
        measured: ``digest`` and ``begun`` of every hook that measures.
    """

    priority = 'VERY_HIGH'

    def __init__(self, sparsity: float, granularity: str, **measured: Any) -> None:
        super().__init__(**measured)
        self.sparsity = sparsity
        self.granularity = granularity
        self.kept['updating'] = {'start': 0.0, 'updates': 0.0}  # seconds

    def begin(self, runner: Runner, model: nn.Module) -> None:
        """Note the model as it is drawn."""
        self.noted['weights_at_start'] = tensor_digest(model.state_dict().values())

    def before_train(self, runner: Runner) -> None:
        """Put a stopwatch on what sets masks as well."""
        super().before_train(runner)
        for hook in runner.hooks:
            if type(hook).__name__ == _UPDATER:
                for method, what in (
                    ('before_train', 'start'),
                    ('before_train_iter', 'updates'),
                    ('after_train_iter', 'updates'),
                ):
                    setattr(hook, method, self._timed(getattr(hook, method), what))

    def _timed(self, call: Callable[..., Any], what: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.kept['updating'][what] += time.perf_counter() - begun

        return timed

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Note the masks of the start, and what the run ends with."""
        super().before_train_iter(runner, batch_idx, data_batch)
        model = unwrapped(runner.model)
        if runner.iter == 0:
            self.noted['rest_at_start'] = tensor_digest(_not_pruned(model))
            self.kept['masks'] = masks(model)
            self.noted['masks_at_start'] = tensor_digest(self.kept['masks'].values())
        if runner.iter == runner.max_iters - 1:
            self.noted['last_batch'] = self.look(data_batch)
            self.noted['random_at_end'] = generators_digest(model)

    def look(self, batch: dict[str, Any]) -> str:
        """All that is in it."""
        return tensor_digest(_tensors(batch))

    def scores(self, metrics: dict[str, float]) -> dict[str, float]:
        """The accuracy."""
        self.noted['loss'] = finite_mean(self.losses[-_LAST_LOSSES:])
        if _SCORE not in metrics:
            raise RuntimeError(f'the evaluation gave no {_SCORE}, but {sorted(metrics)}')
        share = float(metrics[_SCORE])
        if not 0 <= share <= 1:
            raise RuntimeError(
                f'{_SCORE} must be a share between 0 and 1, the evaluation gave {share}'
            )
        return {_SCORE: 100 * share}

    def result(self, runner: Runner, model: nn.Module) -> dict[str, Any]:
        """What is left, against what was to be left, and how much of it was not there before."""
        now, before = masks(model), self.kept['masks']
        total = report(model).total
        arrived = sum(int((mask & ~before[name]).sum()) for name, mask in now.items())
        saved = load_checkpoint_file(Path(runner.work_dir, FINAL))['state_dict']
        updating, seconds = self.kept['updating'], sum(self.kept['seconds'])
        return {
            _SCORE: self.kept['curve'][-1][_SCORE],
            'held_out': len(runner.val_dataloader.dataset),
            'iterations': runner.iter,
            'filters': total.total,
            'filters_kept': total.kept,
            'weights': total.weights_total,
            'weights_kept': total.weights_kept,
            'kept': self._units(now),
            'kept_at_start': self._units(before),
            'kept_wanted': self._wanted(model),
            'exchanged': arrived / total.weights_kept,
            'pruned_but_not_zero': sum(lost_zeros(saved, now).values()),
            'seconds_start': updating['start'],
            'updates_share': updating['updates'] / (seconds or 1.0),
        }

    def _units(self, of: dict[str, Tensor]) -> int:
        masks_of_filters = (mask.flatten(1) for mask in of.values())
        if self.granularity == 'weight':
            return sum(int(mask.sum()) for mask in masks_of_filters)
        return sum(int(mask.any(1).sum()) for mask in masks_of_filters)

    def _wanted(self, model: nn.Module) -> int:
        """The paths of a layer start alike, so it is their common number that is rounded."""
        layers = report(model).layers
        full = {name: ones_like(mask) for name, mask in self.kept['masks'].items()}
        paths = len(full) // len(layers)
        return paths * num_kept(self._units(full) // paths, self.sparsity, len(layers))


def _not_pruned(model: nn.Module) -> list[Tensor]:
    """Everything in a model that no mask concerns."""
    masked = tuple(f'{name}.' for name, _ in masked_layers(model))
    return [value for key, value in model.state_dict().items() if not key.startswith(masked)]


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors inside of a batch."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
