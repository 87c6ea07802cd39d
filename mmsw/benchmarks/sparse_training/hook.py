"""What a training of the benchmark does beside learning: measure, save, verify, report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmsw.checkpoint import load_checkpoint_file
from mmsw.engine.model_wrapper import unwrapped
from mmsw.sparsity import lost_zeros, masked_layers, masks, report
from mmsw.sparsity.allocate import num_kept
from mmsw.whole_file import write_whole

from ..files import write_json
from ..provenance import tensor_digest
from ..runs import RESULT

FINAL = 'final.pth'
_SCORE = 'accuracy'  # in what the evaluator gives
_SEEN_BATCHES = 3
_UPDATER = 'DynamicSparsityHook'


@HOOKS.register_module()
class SparsityBenchmarkHook(Hook):
    """Measure a run, save its final weights, verify them and write the result.

    It comes first among the hooks, so that it sees the model before masks are set, and so that the
    time from one call to the next holds a whole iteration with everything that hooks do in it.

    Args:
        sparsity: Share of the small kernels that is to be pruned; 0 for a dense run.
        granularity: What is counted: ``'filter'`` or ``'weight'``.
        digest: Of the settings of the run; goes into the result.
    """

    priority = 'VERY_HIGH'

    def __init__(self, sparsity: float, granularity: str, digest: str) -> None:
        self.sparsity = sparsity
        self.granularity = granularity
        self.digest = digest
        self._seen: dict[str, Any] = {'first_batches': []}
        self._seconds: list[float] = []
        self._losses: list[float] = []
        self._updating = {'start': 0.0, 'updates': 0.0}  # seconds
        self._masks: dict[str, Tensor] = {}
        self._accuracy: float | None = None
        self._clock: float | None = None
        self._begun = time.perf_counter()

    def before_train(self, runner: Runner) -> None:
        """Remember the model as it is drawn, and put a stopwatch on what sets masks."""
        self._seen['weights_at_start'] = tensor_digest(
            list(unwrapped(runner.model).state_dict().values())
        )
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
                self._updating[what] += time.perf_counter() - begun

        return timed

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Remember what the run began with and what the first batches were."""
        model = unwrapped(runner.model)
        if runner.iter == 0:
            self._seen['random_at_start'] = _random_state(model)
            self._seen['rest_at_start'] = tensor_digest(_not_pruned(model))
            self._masks = masks(model)
            self._seen['masks_at_start'] = tensor_digest(list(self._masks.values()))
        if runner.iter < _SEEN_BATCHES:
            self._seen['first_batches'].append(tensor_digest(list(_tensors(data_batch))))
        if runner.iter == runner.max_iters - 1:
            self._seen['last_batch'] = tensor_digest(list(_tensors(data_batch)))
            self._seen['random_at_end'] = _random_state(model)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Time the iteration before this call, data included."""
        self._losses.append(float(outputs['loss']))
        now = time.perf_counter()
        if self._clock is not None:
            self._seconds.append(now - self._clock)
        self._clock = now

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the accuracy."""
        if _SCORE not in (metrics or {}):
            raise RuntimeError(f'the evaluation gave no {_SCORE}, but {sorted(metrics or {})}')
        share = float(metrics[_SCORE])
        if not 0 <= share <= 1:
            raise RuntimeError(
                f'{_SCORE} must be a share between 0 and 1, the evaluation gave {share}'
            )
        self._accuracy = 100 * share
        self._clock = None

    def after_train(self, runner: Runner) -> None:
        """Write the final weights, read them back, and write the result."""
        if self._accuracy is None:
            raise RuntimeError('there was no evaluation')
        folder = Path(runner.work_dir)

        def save(path: Path) -> None:
            runner.save_checkpoint(
                str(path.parent),
                path.name,
                save_optimizer=False,
                save_param_scheduler=False,
                meta=dict(epoch=0, iter=runner.iter),
            )

        write_whole(folder / FINAL, save)
        model = unwrapped(runner.model)
        write_json(
            folder / RESULT,
            {
                'digest': self.digest,
                'accuracy': self._accuracy,
                'held_out': len(runner.val_dataloader.dataset),
                'loss': statistics.fmean(self._losses[-10:]),
                'iterations': runner.iter,
                **self._density(model),
                'pruned_but_not_zero': _not_zero(folder / FINAL, model),
                'seconds_per_iteration': statistics.median(self._seconds or [0.0]),
                'iterations_timed': len(self._seconds),
                'seconds_start': self._updating['start'],
                'updates_share': self._updating['updates'] / (sum(self._seconds) or 1.0),
                'wall_seconds': time.perf_counter() - self._begun,
                'threads': torch.get_num_threads(),
                **self._seen,
            },
        )

    def _density(self, model: nn.Module) -> dict[str, Any]:
        """What is left, against what was to be left, and how much of it was not there before."""
        now = masks(model)
        total = report(model).total
        arrived = sum(int((mask & ~self._masks[name]).sum()) for name, mask in now.items())
        return {
            'filters': total.total,
            'filters_kept': total.kept,
            'weights': total.weights_total,
            'weights_kept': total.weights_kept,
            'kept': self._units(now),
            'kept_at_start': self._units(self._masks),
            'kept_wanted': self._wanted(model),
            'exchanged': arrived / total.weights_kept,
        }

    def _units(self, of: dict[str, Tensor]) -> int:
        masks_of_filters = (mask.flatten(1) for mask in of.values())
        if self.granularity == 'weight':
            return sum(int(mask.sum()) for mask in masks_of_filters)
        return sum(int(mask.any(1).sum()) for mask in masks_of_filters)

    def _wanted(self, model: nn.Module) -> int:
        """The paths of a layer start alike, so it is their common number that is rounded."""
        layers = report(model).layers
        paths = len(self._masks) // len(layers)
        full = {name: torch.ones_like(mask) for name, mask in self._masks.items()}
        return paths * num_kept(self._units(full) // paths, self.sparsity, len(layers))


def _not_zero(path: Path, model: nn.Module) -> int:
    """Weights in a saved file that are not zero though they are pruned."""
    return sum(lost_zeros(load_checkpoint_file(path)['state_dict'], masks(model)).values())


def _not_pruned(model: nn.Module) -> list[Tensor]:
    """Everything in a model that no mask concerns."""
    masked = tuple(f'{name}.' for name, _ in masked_layers(model))
    return [value for key, value in model.state_dict().items() if not key.startswith(masked)]


def _random_state(model: nn.Module) -> str:
    """Digest of torch's generator and of the states of generators that the model carries."""
    carried = [buffer for buffer in model.buffers() if buffer.dtype == torch.uint8]
    return tensor_digest([torch.get_rng_state(), *carried])


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
