"""What a training of the benchmark does beside learning: start, and measure what the start is."""

from __future__ import annotations

import copy
import os
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.model import PretrainedInit
from mmengine.runner import Runner
from torch import nn

from mmsw.checkpoint import load_pretrained
from mmsw.demo import draw_small_network
from mmsw.sparsity import masked_layers, report, set_masks

from ..digests import tensor_digest
from ..hook import MeasuringHook
from .costs import network_costs


class TransferHook(MeasuringHook):
    """Fill the backbone at the start.

    Every part of the model is first drawn at random by the run's seed, whatever the start; then
    this hook fills the backbone and seeds all generators again. So the heads, the order of the
    data, the augmentation and random depth are those of the seed alone.

    Args:
        start: One of ``mmsw.benchmarks.transfer.plan.STARTS``.
        checkpoint: File for the backbone; None for random values.
        init_cfg: What the backbone starts from where the config decides; None for random values.
        narrow: Draw random values as the demonstration's pretraining does.
        seed: Of the run.
        evaluator_scores: Name -> (key of the evaluator, factor).
        measured: ``digest`` and ``begun`` of every hook that measures.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        start: str,
        checkpoint: str | None,
        init_cfg: dict | list | None,
        narrow: bool,
        seed: int,
        evaluator_scores: dict[str, tuple[str, float]],
        **measured: Any,
    ) -> None:
        super().__init__(**measured)
        self.start = start
        self.checkpoint = checkpoint
        self.init_cfg = init_cfg
        self.narrow = narrow
        self.seed = seed
        self.evaluator_scores = evaluator_scores

    def begin(self, runner: Runner, model: nn.Module) -> None:
        """Fill the backbone, and seed all generators."""
        torch.manual_seed(self.seed)
        self._fill(model.backbone)
        self.noted['density_before'] = _density(model)
        state = model.state_dict().items()
        heads = [value for name, value in state if not name.startswith('backbone.')]
        self.noted['heads_at_start'] = tensor_digest(heads)
        seed = self.seed + get_rank()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _fill(self, backbone: nn.Module) -> None:
        if self.init_cfg is not None:
            # some networks convert what they load, so they do it themselves
            backbone.init_cfg, backbone._is_init = copy.deepcopy(self.init_cfg), False
            backbone.init_weights()
            return
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

    def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Names of the images, and their pixels."""
        images = [
            os.path.basename(sample.metainfo.get('img_path', ''))
            for sample in batch['data_samples']
        ]
        return {'images': images, 'inputs': tensor_digest(batch['inputs'])}

    def scores(self, metrics: dict[str, float]) -> dict[str, float]:
        """An evaluator of detections gives no score at all where nothing was detected."""
        for key, _ in self.evaluator_scores.values():
            if metrics and key not in metrics:
                raise RuntimeError(f'the evaluation gave no {key}, but {", ".join(metrics)}')
        return {
            name: factor * float(metrics.get(key, 0.0))
            for name, (key, factor) in self.evaluator_scores.items()
        }

    def result(self, runner: Runner, model: nn.Module) -> dict[str, Any]:
        """What is left of the start, and what the network costs."""
        return {
            'start': self.start,
            'seed': self.seed,
            'density_after': _density(model),
            **network_costs(model, runner.cfg, _input_size(runner, model)),
        }


def _density(model: nn.Module) -> dict[str, float | int]:
    """Shares of small filters: kept by the masks, and with any weight that is not zero.

    A network without shift-wise layers has no such filters; of its backbone, the share of the
    weights that are not zero is under ``weights_not_zero``.
    """
    layers = [la for _, la in masked_layers(model) if not hasattr(la, 'mask_gate')]
    if not layers:
        weights = [p for p in model.backbone.parameters() if p.ndim > 1]
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        number = sum(weight.numel() for weight in weights)
        shares = {'by_mask': 1.0, 'not_zero': 1.0, 'weights_not_zero': 1 - zeros / number}
        return {'filters': 0, 'zeros': zeros, **shares}
    filters = sum(len(layer.weight) for layer in layers)
    alive = sum(int((layer.weight.detach() != 0).flatten(1).any(1).sum()) for layer in layers)
    return {
        'filters': filters,
        'by_mask': report(model).total.density,
        'not_zero': alive / filters,
        'zeros': sum(int((layer.weight == 0).sum()) for layer in layers),
    }


def _input_size(runner: Runner, model: nn.Module) -> tuple[int, int]:
    """Height and width of what the network sees of the first image of the evaluation."""
    sample = runner.val_dataloader.dataset[0]
    batch = {key: [value] for key, value in sample.items()}
    height, width = model.data_preprocessor(batch, False)['inputs'][0].shape[-2:]
    return int(height), int(width)
