"""A finished training of the demonstration: its config, its files, its scores and predictions."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import find_latest_checkpoint

from mmsw.apis.config import load_config, register_toolbox
from mmsw.apis.valid_loaders import with_valid_loaders
from mmsw.checkpoint import load_checkpoint_file
from mmsw.component_name import component_name
from mmsw.errors import UsageError

CONFIGS = {'seg': 'upernet_sw_mini_scenes', 'det': 'mask_rcnn_sw_mini_scenes'}
# What the metric of mmdet calls them, as shares.
_DETECTION_SCORES = {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'}


@dataclass(frozen=True)
class FinishedRun:
    """A folder of ``tools/train.py``.

    Attributes:
        folder: It.
        cfg: The config that the run used, as the runner wrote it down.
    """

    folder: Path
    cfg: Config

    @classmethod
    def of(cls, folder: Path, task: str) -> FinishedRun:
        """Find the config.

        Raises:
            UsageError: If there is none, or more than one.
        """
        dumped = sorted(folder.glob('*.py'))
        if len(dumped) != 1:
            raise UsageError(
                f'{folder} holds {len(dumped)} configs, expected the one of a finished run: '
                f'python tools/train.py configs/demo/{CONFIGS[task]}.py --work-dir {folder}'
            )
        return cls(folder, load_config(dumped[0]))

    @property
    def name(self) -> str:
        """Of its network, in short."""
        backbone = self.cfg.model.backbone
        kind = component_name(backbone.get('type'))
        if kind.startswith('ResNet') and 'depth' in backbone:
            return f'ResNet-{backbone.depth}'
        stem = Path(self.cfg.filename or self.folder).stem
        return 'SW mini' if 'sw_mini' in stem else stem

    @property
    def start(self) -> Path:
        """Checkpoint file that the backbone started from.

        Raises:
            UsageError: If it started from random values.
        """
        init_cfg = self.cfg.model.backbone.get('init_cfg') or {}
        if component_name(init_cfg.get('type')) != 'Pretrained':
            raise UsageError(
                f'the run in {self.folder} started without a checkpoint, so there is no "before"'
            )
        return Path(init_cfg['checkpoint'])

    @property
    def end(self) -> Path:
        """Checkpoint file that the training left.

        Raises:
            UsageError: If there is none yet.
        """
        if not (self.folder / 'last_checkpoint').is_file():
            raise UsageError(f'{self.folder} holds no checkpoint yet; let tools/train.py finish')
        # the folder may have been moved
        return self.folder / Path(find_latest_checkpoint(str(self.folder))).name

    @contextlib.contextmanager
    def toolbox(self) -> Iterator[None]:
        """Names of its toolbox are known inside of the block."""
        with DefaultScope.overwrite_default_scope(register_toolbox(self.cfg)):
            yield

    def dataset(self) -> BaseDataset:
        """The held-out scenes, with their truth."""
        with self.toolbox(), contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            return DATASETS.build(with_valid_loaders(self.cfg.test_dataloader.dataset, self.cfg))

    def model(self, trained: bool) -> BaseModel:
        """The network as it started, or as it ended."""
        with self.toolbox():
            model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(self.cfg.model)))
            if trained:
                model.load_state_dict(load_checkpoint_file(self.end)['state_dict'])
            else:
                model.init_weights()
        return model

    def parameters(self) -> int:
        """How many the whole network has, pruned ones too."""
        return sum(parameter.numel() for parameter in self.model(False).parameters())

    def evaluate(self, trained: bool, dataset: BaseDataset) -> tuple[dict[str, float], list[Any]]:
        """Scores by name in per cent, and the predicted data sample of every scene."""
        with self.toolbox():
            return evaluate(self.model(trained), dataset, self.cfg.test_evaluator)


@torch.no_grad()
def evaluate(
    model: BaseModel, dataset: BaseDataset, evaluator_cfg: dict | list
) -> tuple[dict[str, float], list[Any]]:
    """Scores of a model on a data set, on the device of the model.

    Args:
        model: A segmentor or detector.
        dataset: Samples with their truth.
        evaluator_cfg: As ``test_evaluator`` of a config.

    Returns:
        Scores in per cent by name, and the predicted data sample of every scene.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = Evaluator(copy.deepcopy(evaluator_cfg))
        evaluator.dataset_meta = dataset.metainfo
        model.eval()
        predictions = []
        for index in range(len(dataset)):
            outputs = model.test_step(pseudo_collate([dataset[index]]))
            evaluator.process(data_samples=outputs, data_batch=None)
            predictions.append(outputs[0].cpu())
        scores = evaluator.evaluate(len(dataset))
    return _in_per_cent(scores), predictions


def _in_per_cent(scores: dict[str, Any]) -> dict[str, float]:
    """Of mmseg as they are; of mmdet the two that the demonstration is about."""
    if not any(name.startswith('coco/') for name in scores):
        return {name: float(value) for name, value in scores.items()}
    return {
        short: 0.0 if math.isnan(scores[name]) else 100 * float(scores[name])
        for name, short in _DETECTION_SCORES.items()
        if name in scores
    }
