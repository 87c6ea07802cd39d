"""Report the sparsity of a network while it trains, and stop the run before a file loses it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmsw import sparsity
from mmsw.checkpoint import add_record
from mmsw.checkpoint.folded import refuse_folded_layers
from mmsw.errors import SparsityLostError
from mmsw.registration import register

from ..loaded_zeros import keep_loaded_zeros, settle_masks
from ..model_wrapper import unwrapped
from ..zeros_guard import ZerosGuard


@register(HOOKS)
class SparsityReportHook(Hook):
    """Log the density per stage at the start and at each save, and guard what is pruned.

    The layers keep their zeros by themselves (they own the masks); this hook makes sure of it. At
    the start of training it remembers which weights are pruned. Before every checkpoint is written
    it looks at the very tensors that go into the file, averaged weights included: if a pruned
    weight is not zero, the run stops and the file is not written. A file that mmengine's own runner
    writes gets the record that mmsw's files have, see :mod:`mmsw.checkpoint.format`.

    Its priority is below that of mmengine's ``EMAHook``, which exchanges weights right before
    saving, and above that of ``CheckpointHook``.

    Args:
        require_sparse: Stop at the start if nothing is pruned. Without it a dense network trains
            dense and the log says so once.
        fixed_masks: Pruned weights stay pruned for the whole run. False for training that prunes
            and regrows: then weights must be zero where the masks of the moment say so. None: False
            if another hook of the run changes masks (``DynamicSparsityHook``), else True.
    """

    priority = 'LOW'

    def __init__(self, require_sparse: bool = False, fixed_masks: bool | None = None) -> None:
        self.require_sparse = require_sparse
        self.fixed_masks = fixed_masks
        self._guard = ZerosGuard()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the zeros that a checkpoint brings."""
        keep_loaded_zeros(runner, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Remember what is pruned, log it, and check the demand for sparsity.

        Raises:
            UsageError: If a layer that would be trained is folded.
            SparsityLostError: If the network is dense although it must not be.
        """
        net = unwrapped(runner.model)
        refuse_folded_layers(net)
        settle_masks(runner)
        report = sparsity.report(net)
        prunes_later = any(getattr(hook, 'prunes_later', False) for hook in runner.hooks)
        if not report.total.is_sparse and not prunes_later:
            problem = (
                'the network is dense: nothing is pruned'
                if report.total.total
                else 'no layer of the network has a mask'
            )
            if self.require_sparse:
                raise SparsityLostError(
                    f'{problem}, but require_sparse=True. Give a sparse checkpoint '
                    '(model.backbone.init_cfg.checkpoint), let DynamicSparsityHook make it sparse, '
                    'or drop the demand'
                )
            runner.logger.warning(f'Sparsity: {problem}; it trains dense.')
            return
        runner.logger.info(f'Sparsity at the start:\n{report}')
        self._guard.remember(net)
        self._guard.check(net.state_dict(), 'at the start of training')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check every set of weights that is about to be written, and add the file's record."""
        net = unwrapped(runner.model)
        add_record(checkpoint, net)
        if not self._guard.masks:
            return
        if not self._fixed(runner):
            self._guard.remember(net)
        self._guard.check_checkpoint(checkpoint, runner.iter)
        runner.logger.info(f'Sparsity of the checkpoint, verified:\n{sparsity.report(net)}')

    def _fixed(self, runner: Runner) -> bool:
        if self.fixed_masks is None:
            return not any(getattr(hook, 'changes_masks', False) for hook in runner.hooks)
        return self.fixed_masks
