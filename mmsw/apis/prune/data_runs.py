"""What a pruning needs the data of a config for: gradients of the loss, and scores."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmsw.engine.saliency import gradients_of_all
from mmsw.errors import UsageError
from mmsw.sparsity import DenseGradients

from ..config import config_name
from ..data import check_data
from ..portable_runner import PortableRunner

_runs = itertools.count(1)  # in this process
_SILENT = dict(checkpoint=None, logger=None, param_scheduler=None)


class DataRuns:
    """A model beside the data of its config.

    Hooks of the config take no part: they are for training, and those that average weights would
    measure others than those of the model.

    Args:
        cfg: The config.
        model: Its model, which goes to the GPU where there is one.
        work_dir: Folder for what mmengine writes.
        evaluate: Whether scores are wanted.

    Attributes:
        no_scores: Why there are none; ``None`` if there are.
    """

    def __init__(self, cfg: Config, model: nn.Module, work_dir: Path, evaluate: bool) -> None:
        self._cfg, self._model = cfg, model
        self.no_scores = _obstacle(cfg) if evaluate else 'not asked for'
        validation = {}
        if self.no_scores is None:
            names = ('val_dataloader', 'val_cfg', 'val_evaluator')
            validation = {name: cfg[name] for name in names}
        self._scope = cfg.get('default_scope', 'mmengine')
        with DefaultScope.overwrite_default_scope(self._scope):
            self._runner = PortableRunner(
                model=model,
                work_dir=str(work_dir),
                default_hooks=_SILENT,
                default_scope=self._scope,
                log_level='WARNING',
                experiment_name=f'prune_{next(_runs)}',
                cfg=cfg,
                **validation,
            )

    def scores(self) -> dict[str, float] | None:
        """Metrics of the model as it is, on the validation data; ``None`` where there are none."""
        if self.no_scores is not None:
            return None
        with DefaultScope.overwrite_default_scope(self._scope):
            found = self._runner.val()
        return {name: float(value) for name, value in found.items() if _is_number(value)}

    def gradients(
        self, layers: Mapping[str, nn.Module], num_batches: int, seed: int
    ) -> dict[str, Tensor]:
        """Gradient of the training loss by layer name, see :mod:`mmsw.engine.saliency`.

        Args:
            layers: Masked layers.
            num_batches: Training batches to look at.
            seed: Of the choice of images and their augmentation.

        Raises:
            UsageError: If the config has no training data, or they are missing.
        """
        if self._cfg.get('train_dataloader') is None:
            raise UsageError(
                f"{config_name(self._cfg)} has no train_dataloader, which by='snip' needs"
            )
        check_data(self._cfg, ['train_dataloader'])
        with DefaultScope.overwrite_default_scope(self._scope):
            loader = self._runner.build_dataloader(self._cfg.train_dataloader, seed=seed)
            arguments = self._model, loader, DenseGradients(layers), num_batches, seed
            found = gradients_of_all(*arguments)
        self._model.eval()
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) or getattr(value, 'ndim', None) == 0


def _obstacle(cfg: Config) -> str | None:
    """Why a config gives no scores."""
    missing = [n for n in ('val_dataloader', 'val_cfg', 'val_evaluator') if cfg.get(n) is None]
    if missing:
        return f'{config_name(cfg)} has no {missing[0]}'
    try:
        check_data(cfg, ['val_dataloader'])
    except UsageError as error:
        return str(error)
    return None
