"""Dynamic sparse training in mmengine's runner: when masks change; mmsw.sparsity says how."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from mmsw.errors import SparsityError, as_usage_errors
from mmsw.registration import register
from mmsw.sparsity import DynamicSettings, DynamicSparsity
from mmsw.sparsity.dynamic_settings import differences, plain_setting
from mmsw.sparsity.dynamic_state import DYNAMIC_SPARSITY
from mmsw.wording import listed

from ..agreement import masks_of_main_process
from ..growth_gradients import GrowthGradients
from ..loaded_zeros import keep_loaded_zeros, settle_masks
from ..model_wrapper import unwrapped
from ..runner_parts import (
    averaged_models,
    has_stepped,
    is_training,
    optim_wrappers,
    optimizers,
)
from ..saliency import gradients_of_all


@register(HOOKS)
class DynamicSparsityHook(Hook):
    """Make a network sparse at the start of training, and go on exchanging what is pruned.

    Every ``interval`` iterations each path of a shift-wise layer drops its least important filters
    and grows as many others; the number that is kept never changes. With ``redistribution`` this
    holds for all layers together: some grow more than they drop, others less. Removed weights are
    zero at once, grown ones start at zero, both with a fresh optimizer state. With gradient
    accumulation an update waits for the next step of the optimizer. Averaged models (``EMAHook``)
    get the same masks. In several processes the first one chooses and the others follow. A resumed
    run goes on exactly as the one that was interrupted: masks, counters, generator and momentum are
    in the checkpoint, and so are the settings: going on with another sparsity, granularity or
    scope, or with other layers, is refused; other rules, rates or intervals are a warning. Nothing
    happens in a run that only validates or tests.

    The settings of the release's pretraining are the defaults (Shift-ConvNets, arXiv 2401.12736),
    but for ``sparsity``, which it has at 0.3.

    Its priority is above that of ``EMAHook``, whose copy of the model must have the masks that
    ``scope`` attaches, and above that of all hooks that report or save.

    Args:
        interval: Iterations from one update to the next.
        end_iter: Iteration from which on the masks stay as they are; 0 for masks that never change
            after the start; ``None``: they change until the end.
        snip_batches: Training batches that ``start='snip'`` looks at, in each process.
        momentum: Share of the past in the running mean of ``grow='momentum'`` and
            ``redistribution='momentum'``, in ``[0, 1)``. The mean is over all iterations and costs
            memory for one more copy of the masked weights; ``grow='gradient'`` takes the gradients
            of the iteration of the update (with accumulation, from there to the optimizer's step).
        seed: Of the random choices; ``None`` for the seed of the run.
        settings: Those of :class:`mmsw.sparsity.DynamicSettings`, by name: ``start``, ``sparsity``
            and the others.

    Raises:
        ValueError: If an argument has a value that makes no sense, or a name that there is not.
    """

    priority = 'ABOVE_NORMAL'
    changes_masks = True  # SparsityReportHook looks for it

    @as_usage_errors()
    def __init__(
        self,
        *,
        interval: int = 100,
        end_iter: int | None = None,
        snip_batches: int = 1,
        momentum: float = 0.9,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        interval = plain_setting('interval', interval)
        end_iter = plain_setting('end_iter', end_iter)
        snip_batches = plain_setting('snip_batches', snip_batches)
        momentum = plain_setting('momentum', momentum)
        if interval < 1:
            raise ValueError(f'interval must be at least 1 iteration, got {interval}')
        if end_iter is not None and end_iter < 0:
            raise ValueError(f'end_iter must not be negative, got {end_iter}')
        if snip_batches < 1:
            raise ValueError(f'snip_batches must be at least 1, got {snip_batches}')
        if not 0 <= momentum < 1:
            raise ValueError(f'momentum must be in [0, 1), got {momentum}')
        self._settings = DynamicSettings.by_name(
            {**settings, 'seed': 0 if seed is None else seed},
            beside=('interval', 'end_iter', 'snip_batches', 'momentum'),
        )
        self._seeded = seed is not None
        self.interval = interval
        self.end_iter = end_iter
        self.snip_batches = snip_batches
        self.momentum = momentum
        self.last_exchange: dict[str, float] | None = None  # MonitorHook looks for it
        self._loaded: dict | None = None
        self._pending = False

    def before_run(self, runner: Runner) -> None:
        """Find the layers, and give masks to those that have none, before anything is loaded."""
        if not is_training(runner):
            return
        settings = self._settings
        if not self._seeded:
            settings = replace(settings, seed=runner.seed or 0)
        self.dynamic = DynamicSparsity(unwrapped(runner.model), settings)
        self._gradients = GrowthGradients(self.dynamic.layers, settings, self.momentum)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the zeros of the checkpoint, and take the state of a run that is resumed."""
        if runner._resume and is_training(runner):
            self._loaded = checkpoint.get(DYNAMIC_SPARSITY)
            if self._loaded is None:
                raise SparsityError(
                    'the checkpoint that the run resumes from was written without '
                    'DynamicSparsityHook, so there is no state to go on from. Start a new run from '
                    "its weights (load_from, without --resume), with start='from_checkpoint' if "
                    'they are sparse'
                )
        keep_loaded_zeros(runner, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Choose the first masks, or go on with those of the run that is resumed."""
        settle_masks(runner)
        self._end = runner.max_iters if self.end_iter is None else self.end_iter
        how, warnings = self._start(runner) if self._loaded is None else self._resume()
        if self._end > runner.max_iters:
            warnings.append(
                f'end_iter={self.end_iter} lies behind the end of the run at {runner.max_iters}; '
                'the share that is exchanged will not fall to end_rate'
            )
        self._gradients.prepare()
        self._kept = self.dynamic.num_kept()
        runner.logger.info(f'Dynamic sparsity: {how}, {self._density()}.')
        for warning in warnings:
            runner.logger.warning(f'Dynamic sparsity: {warning}.')

    def _start(self, runner: Runner) -> tuple[str, list[str]]:
        """Set the first masks; returns what was done, and what the log warns of."""
        dynamic, gradients = self.dynamic, None
        if self._settings.start == 'snip':
            gradients = gradients_of_all(
                unwrapped(runner.model),
                runner.train_dataloader,
                self._gradients.recorder,
                self.snip_batches,
                dynamic.settings.seed,
                runner.rank,
            )
        new, least = dynamic.start_masks(gradients)
        dynamic.apply(masks_of_main_process(new), optimizers(runner), averaged_models(runner))
        warnings = []
        if least:
            warnings.append(
                f'{len(least)} layers keep a single {dynamic.granularity.unit} per path, which '
                f'is the least a layer keeps: {listed(least)}. Consider a lower sparsity, or '
                "start='uniform'"
            )
        if dynamic.frozen:
            warnings.append(
                f'{len(dynamic.frozen)} weights are frozen and keep the masks they have: '
                f'{listed(dynamic.frozen)}'
            )
        if dynamic.granularity.unit != 'weight' and (partial := dynamic.num_partial()):
            warnings.append(
                f'{partial} {dynamic.granularity.unit}s are pruned in part. They count as kept, '
                "and stay so until they are dropped; granularity='weight' conserves the number of "
                'weights'
            )
        return f'start={self._settings.start!r}', warnings

    def _resume(self) -> tuple[str, list[str]]:
        """Go on from the checkpoint; returns what was done, and what the log warns of."""
        state, layers = self.dynamic.load_state_dict(self._loaded), self.dynamic.layers
        self._pending = state.pending
        if self._settings.goes_by_momentum:
            self._gradients.means = {
                name: mean.to(layers[name].weight.device)
                for name, mean in state.momentum.items()
                if name in layers
            }
        warnings = []
        if state.settings is None:
            warnings.append(
                'the checkpoint was written by an earlier version of mmsw and does not record the '
                'settings of its training; those of this run must be the same'
            )
        elif changed := differences(state.settings, self._all_settings()):
            warnings.append(f'other settings now: {"; ".join(changed)}')
        return f'goes on after {state.updates} updates', warnings

    def _all_settings(self) -> dict[str, Any]:
        return {
            **vars(self.dynamic.settings),
            'interval': self.interval,
            'end_iter': self.end_iter,
            'momentum': self.momentum,
        }

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Watch dense gradients where growth needs them."""
        if not self._adapts(runner.iter):
            self._gradients.recorder.stop()
            return
        self._pending = self._pending or (runner.iter + 1) % self.interval == 0
        by_momentum = self._settings.goes_by_momentum
        # The step of the optimizer may change the scale.
        self._gradients.begin(self._pending, _loss_scale(runner) if by_momentum else 1.0)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Update the masks if it is time, right after a step of the optimizer."""
        if not self._adapts(runner.iter):
            return
        self._gradients.end(self._pending)
        # After the last iteration there is nothing left to train what is grown.
        if not (self._pending and has_stepped(runner) and runner.iter + 1 < self._end):
            return
        gradients = self._gradients.for_growth()
        is_finite = gradients is None or _finite(gradients)
        self._gradients.forget()
        if is_finite:  # else mixed precision overflowed, and the optimizer did nothing: wait for it
            self._pending = False
            self._gradients.check_seen()
            self._update(runner, gradients)

    def after_train(self, runner: Runner) -> None:
        """Take the hooks away from the layers."""
        self._gradients.recorder.stop()

    def _adapts(self, step: int) -> bool:
        """Whether masks may change in or after the iteration that begins after ``step``."""
        return step < self._end

    def _update(self, runner: Runner, gradients: dict[str, Tensor] | None) -> None:
        dynamic = self.dynamic
        new, rate = dynamic.next_masks(runner.iter + 1, self._end, gradients, self._gradients.means)
        new = masks_of_main_process(new)
        if dynamic.num_kept(new) != self._kept:
            raise RuntimeError(
                f'an update would keep {dynamic.num_kept(new)} {dynamic.granularity.unit}s '
                f'instead of {self._kept}; masks were changed behind the hook'
            )
        before = dynamic.num_weights()
        grown = dynamic.apply(new, optimizers(runner), averaged_models(runner))
        after = dynamic.num_weights()
        self.last_exchange = {
            'sparsity/pruned_weights': before + grown - after,
            'sparsity/grown_weights': grown,
            'sparsity/exchanged': grown / max(1, after),
        }
        runner.logger.info(
            f'Dynamic sparsity: update {dynamic.updates} after iteration {runner.iter + 1}, up to '
            f'{rate:.2%} exchanged, {grown} weights grown, {self._density()}.'
        )

    def _density(self) -> str:
        kept, total = self._kept, self.dynamic.num_units()
        return f'{kept}/{total} {self.dynamic.granularity.unit}s kept ({kept / total:.2%})'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save what a resumed run needs beside the masks, which are in the model."""
        checkpoint[DYNAMIC_SPARSITY] = self.dynamic.state(
            settings=self._all_settings(),
            pending=self._pending,
            momentum={name: mean.cpu() for name, mean in self._gradients.means.items()},
        ).as_dict()


def _loss_scale(runner: Runner) -> float:
    scalers = [getattr(wrapper, 'loss_scaler', None) for wrapper in optim_wrappers(runner)]
    return next((scaler.get_scale() for scaler in scalers if scaler is not None), 1.0)


def _finite(gradients: dict[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())
