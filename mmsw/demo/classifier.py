"""A classifier for pretraining without a toolbox: backbone, mean over positions, linear layer."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmsw.registration import register


@register(MODELS)
class DemoClassifier(BaseModel):
    """A backbone, and a linear classifier on the mean of its last map.

    Saved weights are named ``backbone.*`` and ``head.*``, so a backbone of this project loads its
    part of a checkpoint as it is.

    Args:
        backbone: Config of the backbone; it returns maps, the last one ``[n, in_channels, h, w]``.
        in_channels: Channels of that map.
        num_classes: Classes to tell apart.
        data_preprocessor: Config of what makes ``inputs`` from a batch of the data loader.
        init_cfg: As for any module of mmengine.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: int,
        num_classes: int,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(in_channels, num_classes)

    def forward(
        self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[dict[str, int]]:
        """Classify a batch.

        Args:
            inputs: Normalised images ``[n, 3, h, w]``.
            labels: int64 ``[n]``, needed by the modes ``'loss'`` and ``'predict'``.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            Logits ``[n, num_classes]``; the cross entropy as ``loss``; or a dict with
            ``pred_label`` and ``gt_label`` per image.

        Raises:
            ValueError: If the mode is none of these.
        """
        logits = self.head(self.backbone(inputs)[-1].mean((2, 3)))
        if mode == 'tensor':
            return logits
        if mode == 'loss':
            return {'loss': F.cross_entropy(logits, labels)}
        if mode == 'predict':
            pairs = zip(logits.argmax(1).tolist(), labels.tolist(), strict=True)
            return [{'pred_label': predicted, 'gt_label': true} for predicted, true in pairs]
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}")
