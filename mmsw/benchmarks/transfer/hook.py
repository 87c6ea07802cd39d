"""What a training of the benchmark does beside learning: start, measure, save, report."""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import PretrainedInit
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmsw.checkpoint import load_pretrained
from mmsw.demo import draw_small_network
from mmsw.engine.model_wrapper import unwrapped
from mmsw.sparsity import masked_layers, report, set_masks
from mmsw.whole_file import write_whole

from ..files import write_json, write_text
from ..provenance import tensor_digest
from ..runs import RESULT
from .costs import network_costs
from .memory import resident_peak

LATEST = 'latest.pth'
FINAL = 'final.pth'
PROGRESS = 'progress.json'
_SEEN_BATCHES = 3
_KEY = 'transfer'  # in a checkpoint


@HOOKS.register_module()
class TransferHook(Hook):
    """Fill the backbone at the start, keep the learning curve, and write the result at the end.

    Every part of the model is first drawn at random by the run's seed, whatever the start; then
    this hook fills the backbone and seeds all generators again. So the heads, the order of the
    data, the augmentation and random depth are those of the seed alone.

    After each evaluation the whole state is saved, random generators included; a run that goes on
    from there ends with the same weights as one that was never stopped.

    Args:
        start: One of ``mmsw.benchmarks.transfer.plan.STARTS``.
        checkpoint: File for the backbone; None for random values.
        narrow: Draw random values as the demonstration's pretraining does.
        seed: Of the run.
        scores: Name -> (key of the evaluator, factor).
        digest: Of the settings of the run; goes into the result.
        begun: When the process was started, in seconds since the epoch.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        start: str,
        checkpoint: str | None,
        narrow: bool,
        seed: int,
        scores: dict[str, tuple[str, float]],
        digest: str,
        begun: float,
    ) -> None:
        self.start = start
        self.checkpoint = checkpoint
        self.narrow = narrow
        self.seed = seed
        self.scores = scores
        self.digest = digest
        # Everything below travels with the checkpoint.
        self._kept: dict[str, Any] = {
            'curve': [],
            'seconds': [],
            'elapsed': 0.0,
            'peak': 0,
            'first_batches': [],
        }
        self._losses: list[float] = []
        self._clock: float | None = None
        self._begun = begun
        self._told = 0.0

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take over what was measured before the run was stopped."""
        self._kept = checkpoint.get(_KEY, self._kept)

    def before_train(self, runner: Runner) -> None:
        """Fill the backbone; or, in a run that goes on, restore the random generators."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if runner.iter:
            loop = runner.train_loop
            states = self._kept['random'][get_rank()]
            loop.dataloader_iterator = _RestoringIterator(
                loop.dataloader_iterator, runner.iter, states
            )
            return
        model = unwrapped(runner.model)
        torch.manual_seed(self.seed)
        self._fill(model.backbone)
        self._kept['density_before'] = _density(model)
        self._kept['heads'] = tensor_digest(
            [
                value
                for name, value in model.state_dict().items()
                if not name.startswith('backbone.')
            ]
        )
        seed = self.seed + get_rank()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _fill(self, backbone: nn.Module) -> None:
        if self.checkpoint is None:
            if self.narrow:
                draw_small_network(backbone)
            return
        if not any(True for _ in masked_layers(backbone)):
            PretrainedInit(self.checkpoint)(backbone)
            return
        load_pretrained(backbone, self.checkpoint)
        if self.start == 'sparse-unmasked':
            kept = {name: torch.ones_like(layer.mask) for name, layer in masked_layers(backbone)}
            set_masks(backbone, kept)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Remember what the first batches were."""
        if batch_idx == 0:
            self._kept['random_at_start'] = tensor_digest([torch.get_rng_state()])
        if batch_idx < _SEEN_BATCHES:
            samples = data_batch['data_samples']
            images = [os.path.basename(sample.metainfo.get('img_path', '')) for sample in samples]
            inputs = tensor_digest(list(data_batch['inputs']))
            self._kept['first_batches'].append({'images': images, 'inputs': inputs})

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Time the iteration, data included, and tell how far the run is."""
        self._losses.append(outputs['loss'].item())
        now = time.perf_counter()
        if self._clock is not None:
            self._kept['seconds'].append(now - self._clock)
        self._clock = now
        if is_main_process() and now - self._told > 1:
            self._tell(runner, batch_idx + 1)
            self._told = now

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add a point to the learning curve and save the state."""
        metrics = metrics or {}
        loss = statistics.fmean(self._losses) if self._losses else math.nan
        loss = loss if math.isfinite(loss) else None  # None where it diverged
        point: dict[str, Any] = {'iteration': runner.iter, 'loss': loss}
        for name, (key, factor) in self.scores.items():
            # An evaluator of detections gives no score at all where nothing was detected.
            if metrics and key not in metrics:
                raise RuntimeError(f'the evaluation gave no {key}, but {", ".join(metrics)}')
            point[name] = factor * float(metrics.get(key, 0.0))
        self._kept['curve'].append(point)
        self._losses = []
        now = time.time()
        self._kept['elapsed'] += now - self._begun
        self._begun = now
        self._kept['peak'] = max([self._kept['peak'], *all_gather_object(_peak_memory())])
        self._kept['random'] = all_gather_object(_random_states())
        save_whole(runner, LATEST)
        if is_main_process():
            self._tell(runner, runner.iter)
            folder = Path(runner.work_dir)
            write_text(folder / 'last_checkpoint', str(folder / LATEST))
        self._clock = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """What was measured goes into the file that a stopped run goes on from."""
        if 'optimizer' in checkpoint:
            checkpoint[_KEY] = self._kept

    def after_train(self, runner: Runner) -> None:
        """Write the final weights and the result."""
        save_whole(runner, FINAL, save_optimizer=False, save_param_scheduler=False)
        if not is_main_process():
            return
        folder = Path(runner.work_dir)
        self._kept['elapsed'] += time.time() - self._begun
        model = unwrapped(runner.model)
        last = self._kept['curve'][-1]
        if last['iteration'] != runner.max_iters:
            raise RuntimeError(f'the last evaluation was at iteration {last["iteration"]}')
        seconds = self._kept['seconds']
        write_json(
            folder / RESULT,
            {
                'digest': self.digest,
                'start': self.start,
                'seed': self.seed,
                'scores': {name: last[name] for name in self.scores},
                'curve': self._kept['curve'],
                'density_before': self._kept['density_before'],
                'density_after': _density(model),
                'seconds_per_iteration': statistics.median(seconds) if seconds else None,
                'iterations_timed': len(seconds),
                'wall_seconds': self._kept['elapsed'],
                'peak_memory': self._kept['peak'],
                'memory': 'GPU, allocated' if torch.cuda.is_available() else 'process, resident',
                **network_costs(model, runner.cfg, _input_size(runner, model)),
                'first_batches': self._kept['first_batches'],
                'heads_at_start': self._kept['heads'],
                'random_at_start': self._kept['random_at_start'],
            },
        )
        for name in (LATEST, 'last_checkpoint'):
            (folder / name).unlink(missing_ok=True)

    def _tell(self, runner: Runner, done: int) -> None:
        curve = self._kept['curve']
        state = {'done': done, 'of': runner.max_iters, 'last': curve[-1] if curve else None}
        write_json(Path(runner.work_dir, PROGRESS), state)


def save_whole(runner: Runner, name: str, **parts: bool) -> None:
    """Save a checkpoint in the working folder, whole or not at all.

    Every process of the run has to call it: in the first one the file is written, the others wait
    for its verdict, see ``PortableRunner.save_checkpoint``.

    Args:
        runner: Of the run.
        name: Of the file.
        parts: What goes into it, as ``Runner.save_checkpoint`` takes it.
    """

    def save(path: Path) -> None:
        meta = dict(epoch=0, iter=runner.iter)
        runner.save_checkpoint(str(path.parent), path.name, meta=meta, **parts)

    path = Path(runner.work_dir, name)
    if is_main_process():
        write_whole(path, save)
    else:
        save(path)


class _RestoringIterator:
    """Batches of a run that goes on: the generators are set once the seen ones are skipped."""

    def __init__(self, batches: Any, to_skip: int, states: dict[str, Any]) -> None:
        self._batches = batches
        self._to_skip = to_skip
        self._states = states

    def __iter__(self) -> _RestoringIterator:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._to_skip -= 1
        if self._to_skip == 0:
            _restore(self._states)
        return batch

    def skip_iter(self, num_iters: int) -> None:
        """What onedl's mmengine calls; seen batches are loaded, as their augmentation draws too."""
        for _ in range(num_iters):
            next(self)


def _random_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    states = {
        'python': random.getstate(),
        'numpy': (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def _restore(states: dict[str, Any]) -> None:
    version, values, gauss = states['python']
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = states['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


def _density(model: nn.Module) -> dict[str, float | int]:
    """Shares of small filters: kept by the masks, and with any weight that is not zero."""
    filters = alive = 0
    for _, layer in masked_layers(model):
        filters += layer.weight.shape[0]
        alive += int((layer.weight.detach() != 0).flatten(1).any(1).sum())
    total = report(model).total
    return {
        'filters': filters,
        'by_mask': total.density,
        'not_zero': alive / filters if filters else 1.0,
        'zeros': sum(int((layer.weight == 0).sum()) for _, layer in masked_layers(model)),
    }


def _peak_memory() -> int:
    """Most memory so far, in bytes: of torch on the GPU, or of this process on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident_peak()


def _input_size(runner: Runner, model: nn.Module) -> tuple[int, int]:
    """Height and width of what the network sees of the first image of the evaluation."""
    sample = runner.val_dataloader.dataset[0]
    batch = {key: [value] for key, value in sample.items()}
    height, width = model.data_preprocessor(batch, False)['inputs'][0].shape[-2:]
    return int(height), int(width)
