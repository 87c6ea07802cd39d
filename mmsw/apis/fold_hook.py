"""Testing the folded form of a model."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmsw.component_name import component_name
from mmsw.deploy import fold_model
from mmsw.engine.model_wrapper import unwrapped
from mmsw.errors import UsageError
from mmsw.registration import register


@register(HOOKS)
class FoldModelHook(Hook):
    """Folds the model right before a test, when its weights are loaded."""

    priority = 'VERY_HIGH'

    def before_test(self, runner: Runner) -> None:
        """Fold, and log what was folded and what stays.

        Raises:
            UsageError: If a norm of the backbone cannot be folded, or nothing of the model can.
        """
        model = unwrapped(runner.model)
        report = fold_model(model)
        if report.backbone is None:
            backbone = type(getattr(model, 'backbone', model)).__name__
            if not report.folded:
                raise UsageError(
                    f'nothing of the {type(model).__name__} can be folded: its {backbone} has no '
                    'folded form, and no batch norm stands right behind a convolution outside of '
                    'it. Test it without --deploy (deploy=True)'
                )
            runner.logger.warning(f'the {backbone} has no folded form and stays as it is')
        runner.logger.info(f'folded for the test\n{report}')


def enable_folding(cfg: Config) -> None:
    """Let a test run fold its model.

    Averaged weights are what a checkpoint holds as the weights of the model, so a test needs no
    ``EMAHook``, which would exchange tensors that a folded model has no longer.
    """
    hooks = [hook for hook in cfg.get('custom_hooks') or () if _kind(hook) != 'EMAHook']
    cfg.custom_hooks = [*hooks, dict(type=FoldModelHook.__name__)]


def _kind(hook: object) -> str:
    kind = hook.get('type') if isinstance(hook, dict) else type(hook)
    return component_name(kind)
