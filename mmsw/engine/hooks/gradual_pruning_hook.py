"""Pruning step by step in mmengine's runner: when masks shrink; mmsw.sparsity says how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from mmsw.errors import SparsityError, UsageError, as_usage_errors
from mmsw.registration import register
from mmsw.sparsity import DenseGradients, Pruning, PruningSettings, set_masks
from mmsw.sparsity.cubic_schedule import CubicSchedule
from mmsw.sparsity.dynamic_settings import differences, plain_setting
from mmsw.whole_number import whole_number
from mmsw.wording import listed

from ..agreement import masks_of_main_process
from ..loaded_zeros import keep_loaded_zeros, settle_masks
from ..model_wrapper import refuse_sharded, unwrapped
from ..runner_parts import averaged_models, has_stepped, is_training, optimizers
from ..saliency import gradients_of_all
from ..zeros_after_steps import keep_zero_after_steps

GRADUAL_PRUNING = 'gradual_pruning'  # key of a checkpoint: how far the pruning is
_NEVER_CHANGE = ('sparsity', 'granularity', 'scope', 'include_all', 'per_layer')
_STEPS = 20  # if nothing else is asked for
_PRUNES = 0.75  # of a run, so that the rest trains what is left


@register(HOOKS)
class GradualPruningHook(Hook):
    """Prune a network more and more while it trains, whatever the network.

    The sparsity follows a cubic schedule (Zhu and Gupta 2017, arXiv 1710.01878), see
    :class:`mmsw.sparsity.cubic_schedule.CubicSchedule`. At every step exactly so many units are
    pruned as it says, and what is pruned stays so: masks only shrink. Pruned weights are zero at
    once, in averaged models (``EMAHook``) too, and the optimizers forget their past. With gradient
    accumulation a step waits for the optimizer's. In several processes the first one chooses and
    the others follow. A resumed run goes on exactly: masks and the last step are in the checkpoint.
    Nothing happens in a run that only validates or tests.

    ``granularity='N:M'`` reaches its pattern with the last step. Before that, the smallest of the
    weights that it will prune go, at most ``M - N`` of a group.

    Frozen weights are left out. Its priority is above that of ``EMAHook``, whose copy of the model
    must have the masks, and above that of all hooks that report or save.

    Args:
        sparsity: Share of the units that is pruned at the end, in ``[0, 1)``; ``None`` for
            ``'N:M'``, which says it.
        begin: Iterations done before the first step; 0: before the training.
        end: Iterations done before the last step; ``None``: three quarters of the run.
        interval: Iterations from one step to the next; ``None``: for 20 steps.
        initial: Share that the first step prunes.
        granularity: What is pruned in one piece, see :class:`mmsw.sparsity.PruningSettings`.
        scope: Regular expression for names of weights; ``None``: all layers but the first one and
            those that predict.
        by: ``'magnitude'``, ``'snip'`` (gradients of training batches at every step) or
            ``'random'``.
        per_layer: Every layer prunes this share; ``False``: all layers together do.
        include_all: Without a scope, also prune the first and the last layers.
        snip_batches: Training batches that ``'snip'`` looks at, in each process.
        seed: Of ``'random'`` and of the batches of ``'snip'``; the same in all processes.

    Raises:
        ValueError: If an argument has a value that makes no sense.
    """

    priority = 'ABOVE_NORMAL'
    changes_masks = True  # SparsityReportHook looks for both
    prunes_later = True

    @as_usage_errors()
    def __init__(
        self,
        sparsity: float | None = None,
        begin: int = 0,
        end: int | None = None,
        interval: int | None = None,
        initial: float = 0.0,
        granularity: str = 'weight',
        scope: str | None = None,
        by: str = 'magnitude',
        per_layer: bool = True,
        include_all: bool = False,
        snip_batches: int = 1,
        seed: int = 0,
    ) -> None:
        self._settings = PruningSettings(
            plain_setting('sparsity', sparsity),
            plain_setting('granularity', granularity),
            plain_setting('scope', scope),
            by,
            bool(per_layer),
            bool(include_all),
            whole_number(seed, 'seed'),
        )
        self.begin = whole_number(begin, 'begin')
        self.end = None if end is None else whole_number(end, 'end')
        self.interval = None if interval is None else whole_number(interval, 'interval', True)
        self.initial = plain_setting('initial', initial)
        self.snip_batches = whole_number(snip_batches, 'snip_batches', True)
        known = self.begin if self.end is None else self.end
        CubicSchedule(self._settings.sparsity, self.begin, known, self.interval or 1, self.initial)
        self._done: int | None = None  # the last step, as iterations done
        self._handles: list[Any] = []

    def before_run(self, runner: Runner) -> None:
        """Find the layers, and give them masks before anything is loaded.

        Raises:
            UsageError: If another hook chooses masks, or the model is cut into pieces.
        """
        if not is_training(runner):
            return
        refuse_sharded(runner.model, type(self).__name__)
        others = [
            type(hook).__name__
            for hook in runner.hooks
            if hook is not self and getattr(hook, 'changes_masks', False)
        ]
        if others:
            raise UsageError(
                f'{listed(others)} chooses masks as {type(self).__name__} does: keep one of them '
                'in custom_hooks'
            )
        self.pruning = Pruning(unwrapped(runner.model), self._settings, only_trained=True)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the zeros of the checkpoint, and take the state of a run that is resumed."""
        keep_loaded_zeros(runner, checkpoint)
        if not (runner._resume and is_training(runner)) or GRADUAL_PRUNING not in checkpoint:
            return
        saved = checkpoint[GRADUAL_PRUNING]
        done = saved.get('done', -1) if isinstance(saved, Mapping) else -1
        if not (done is None or (isinstance(done, int) and done >= 0)):
            raise SparsityError(
                'the state of gradual pruning in the checkpoint is damaged. Resume from another '
                'checkpoint of the run, or start a new run from its weights (load_from, without '
                '--resume)'
            )
        changed = differences(saved.get('settings', {}), self._all_settings())
        refused = [text for text in changed if text.partition(' ')[0] in _NEVER_CHANGE]
        if refused:
            raise SparsityError(
                f'cannot resume with other settings of gradual pruning: {"; ".join(refused)}. '
                'Resume with the settings of the checkpoint, or start a new run from its weights '
                '(load_from, without --resume)'
            )
        if changed:
            runner.logger.warning(f'Gradual pruning: other settings now: {"; ".join(changed)}.')
        self._done = done

    def before_train(self, runner: Runner) -> None:
        """Settle the schedule, say what will be pruned, and make a step that is due.

        Raises:
            SparsityError: If the run ends before the schedule does.
        """
        settle_masks(runner)
        self.schedule = self._schedule_of(runner)
        self._handles = keep_zero_after_steps(self.pruning.net, optimizers(runner))
        schedule, kept = self.schedule, self._kept()
        runner.logger.info(
            f'Gradual pruning: {self._settings.granularity} of {len(self.pruning.layers)} layers '
            f'from {schedule.initial:.2%} after iteration {schedule.begin} to {schedule.final:.2%} '
            f'after iteration {schedule.end}, every {schedule.interval}, {kept}.'
        )
        for reason in dict.fromkeys(self.pruning.left_out.values()):
            names = [n for n, why in self.pruning.left_out.items() if why == reason]
            runner.logger.info(f'Gradual pruning: left out ({reason}): {listed(names)}.')
        if self._done is None and runner.iter == 0:
            self._step_if_due(runner, 0)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Make a step if one is due, right after a step of the optimizer."""
        if has_stepped(runner):
            self._step_if_due(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save what a resumed run needs beside the masks, which are in the model."""
        checkpoint[GRADUAL_PRUNING] = {'done': self._done, 'settings': self._all_settings()}

    def _schedule_of(self, runner: Runner) -> CubicSchedule:
        end = round(_PRUNES * runner.max_iters) if self.end is None else self.end
        if end > runner.max_iters or self.begin > end:
            raise SparsityError(
                f'gradual pruning from iteration {self.begin} to {end} does not fit into a run of '
                f'{runner.max_iters}: it would never reach its sparsity. Set begin and end to less'
            )
        interval = self.interval or max(1, -(-(end - self.begin) // _STEPS))
        return CubicSchedule(self._settings.sparsity, self.begin, end, interval, self.initial)

    def _step_if_due(self, runner: Runner, iterations: int) -> None:
        step = self.schedule.step_before(iterations)
        if step is None or (self._done is not None and step <= self._done):
            return
        gradients = None
        if self._settings.by == 'snip':
            gradients = self._gradients(runner, step)
        share = self.schedule.sparsity(step)
        new = masks_of_main_process(self.pruning.masks(share, gradients))
        set_masks(self.pruning.net, new, optimizers(runner))
        for net in averaged_models(runner):
            set_masks(net, new)
        self._done = step
        runner.logger.info(
            f'Gradual pruning: after iteration {iterations}, {share:.2%} asked for, {self._kept()}.'
        )

    def _gradients(self, runner: Runner, step: int) -> dict[str, Tensor]:
        recorder = DenseGradients(self.pruning.layers)
        try:
            return gradients_of_all(
                self.pruning.net,
                runner.train_dataloader,
                recorder,
                self.snip_batches,
                self._settings.seed + step,
                runner.rank,
            )
        finally:
            recorder.stop()

    def _kept(self) -> str:
        kept, total = sum(self.pruning.numbers().values()), sum(self.pruning.sizes().values())
        return f'{kept}/{total} {self.pruning.granularity.unit}s kept ({kept / total:.2%})'

    def _all_settings(self) -> dict[str, Any]:
        own = dict(begin=self.begin, end=self.end, interval=self.interval, initial=self.initial)
        return {**vars(self._settings), **own}
