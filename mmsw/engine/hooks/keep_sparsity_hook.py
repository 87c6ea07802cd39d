"""Zeros of the weights that a training starts from stay zero, whatever the network."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmsw.checkpoint import add_record
from mmsw.checkpoint.folded import refuse_folded_layers
from mmsw.errors import SparsityLostError, UsageError, as_usage_errors
from mmsw.registration import register
from mmsw.sparsity import ZerosFound, attach_masks_of_zeros
from mmsw.sparsity.attach import compiled_scope
from mmsw.sparsity.zeros import check_min_share
from mmsw.wording import listed

from ..agreement import share_masks
from ..load_watch import LoadWatch
from ..loaded_zeros import close_masks, keep_loaded_zeros, settle_masks
from ..model_wrapper import refuse_sharded, unwrapped
from ..runner_parts import is_training, optimizers
from ..zeros_after_steps import keep_zero_after_steps
from ..zeros_guard import ZerosGuard

SOURCES = ('auto', 'mask', 'zeros')


@register(HOOKS)
class KeepSparsityHook(Hook):
    """Keep what is pruned in the weights that a training starts from at exactly zero.

    One line in any config of OpenMMLab, whatever its network:
    ``custom_hooks = [dict(type='KeepSparsityHook')]``. The weights may come from ``init_cfg`` of
    the model or of a part of it, from ``load_from``, from a run that is resumed, or be set before
    the run. Each layer with zeros enough gets a mask, a buffer ``mask`` beside its ``weight``. From
    then on its pruned weights get a gradient of zero, are zero after every step of any optimizer,
    and are verified before each checkpoint is written, averaged weights included. The files hold
    plain zeros in ordinary weights, so anything can load them, and the masks beside these, so that
    a run resumes with the same ones.

    Biases, norms and other vectors are left alone, and so are zeros that an initialisation has
    left: those of layers that no file filled and that were not partly zero before the run.

    Its priority is below that of mmengine's ``EMAHook``, which exchanges weights right before
    saving, and above that of ``SparsityReportHook`` and ``CheckpointHook``.

    Args:
        scope: Regular expression that a parameter's name contains a match of; zeros of other
            weights are trained.
        source: What says that a weight is pruned: ``'mask'``, the masks in the file; ``'zeros'``,
            the exact zeros of the weights; ``'auto'``, masks where the file brings them, else
            zeros. A run that is resumed goes by the masks of its file, if it has any.
        min_share: Share of a weight that must be zero, in ``(0, 1]``. Fewer zeros are no pruning,
            and are trained.

    Raises:
        ValueError: If an argument has a value that makes no sense.
    """

    priority = 'BELOW_NORMAL'
    keeps_zeros = True  # warnings of zeros that will be trained do not apply

    @as_usage_errors()
    def __init__(self, scope: str = r'.*', source: str = 'auto', min_share: float = 0.05) -> None:
        if source not in SOURCES:
            raise UsageError(f'source must be one of {SOURCES}, got {source!r}')
        compiled_scope(scope)
        check_min_share(min_share)
        self.scope = scope
        self.source = source
        self.min_share = min_share
        self._guard = ZerosGuard()
        self._watch: LoadWatch | None = None
        self._handles: list[Any] = []

    def before_run(self, runner: Runner) -> None:
        """Watch what fills the network from now on.

        Raises:
            UsageError: If the model is cut into pieces for several processes, or another hook of
                the run chooses masks.
        """
        if is_training(runner):
            self._start_watch(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the layers masks for which the checkpoint brings them."""
        watch = self._start_watch(runner) if is_training(runner) else None
        keep_loaded_zeros(runner, checkpoint)
        if watch is not None:
            watch.note(checkpoint.get('state_dict', checkpoint))

    def before_train(self, runner: Runner) -> None:
        """Turn zeros into masks, tell everything that must know, and say what was found.

        Raises:
            UsageError: If a layer that would be trained is folded.
            SparsityError: If the scope matches no weight.
            SparsityLostError: If nothing is pruned, or the run has initialised pruned weights anew.
        """
        net, watch = unwrapped(runner.model), self._start_watch(runner)
        watch.close()
        refuse_folded_layers(net)
        found = self._find(runner, net, watch)
        self._watch = None
        share_masks(net)
        settle_masks(runner)
        self._guard.remember(net)
        self._handles = keep_zero_after_steps(net, optimizers(runner))
        _say(runner, found)
        self._guard.check(net.state_dict(), 'at the start of training')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check every set of weights that is about to be written, and add the file's record."""
        add_record(checkpoint, unwrapped(runner.model))
        self._guard.check_checkpoint(checkpoint, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _start_watch(self, runner: Runner) -> LoadWatch:
        if self._watch is None:
            self._refuse_others(runner)
            self._watch = LoadWatch(unwrapped(runner.model))
        return self._watch

    def _refuse_others(self, runner: Runner) -> None:
        name = type(self).__name__
        refuse_sharded(runner.model, name)
        others = [type(h).__name__ for h in runner.hooks if getattr(h, 'changes_masks', False)]
        if others:
            raise UsageError(
                f'{listed(others)} chooses masks and keeps what it prunes at zero by itself: leave '
                f'{name} out of custom_hooks'
            )

    def _find(self, runner: Runner, net: nn.Module, watch: LoadWatch) -> ZerosFound:
        brought = list(watch.brought())
        resumes = runner._resume and bool(brought)
        if self.source == 'zeros' and not resumes:
            for layer in brought:
                layer.mask.fill_(True)
        else:
            close_masks(net, brought)
        found = attach_masks_of_zeros(
            net,
            self.scope,
            self.min_share,
            initial=watch.initial(),
            only_masks=self.source == 'mask' or resumes,
        )
        if lost := watch.lost_at_start(self.min_share):
            raise SparsityLostError(
                f'{listed(lost)} had zeros before the run, which then initialised these weights '
                'anew. Call init_weights() of the model before you set weights to zero, or give a '
                'pruned checkpoint (load_from)'
            )
        if not found.kept:
            raise SparsityLostError(self._nothing(found))
        return found

    def _nothing(self, found: ZerosFound) -> str:
        reasons = [
            f'{len(names)} layers {what} ({listed(list(names))})'
            for names, what in (
                (found.scarce, f'have zeros, but less than min_share={self.min_share:g}'),
                (found.initial, 'have zeros of their initialisation'),
                (found.left, 'have zeros that no mask can keep'),
            )
            if names
        ]
        return (
            f'{type(self).__name__} found nothing to keep: no weight that scope={self.scope!r} '
            f'chooses is pruned; {"; ".join([f"{len(found.dense)} layers are dense", *reasons])}. '
            'Give a pruned checkpoint (load_from, or init_cfg of the model), or leave the hook out '
            'to train dense'
        )


def _say(runner: Runner, found: ZerosFound) -> None:
    runner.logger.info(f'Sparsity: {found}')
    if found.emptied:
        runner.logger.warning(
            f'Sparsity: nothing is left of {listed(found.emptied)}: every weight is zero in the '
            'file, and stays so'
        )
    for why in dict.fromkeys(found.left.values()):
        names = [name for name, reason in found.left.items() if reason == why]
        runner.logger.warning(
            f'Sparsity: the zeros of {len(names)} weights will be trained, since {why}: '
            f'{listed(names)}'
        )
