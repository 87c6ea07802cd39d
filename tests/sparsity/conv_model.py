"""A network of ordinary layers, as most configs have one, for the hooks of sparse training."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn


class ConvModel(BaseModel):
    """Convolutions with batch norms, a depthwise one among them, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, groups=12, bias=False),
            nn.Conv2d(12, 16, 1),
        )
        self.classifier = nn.Linear(16, 4)

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'loss') -> dict | Tensor:
        logits = self.classifier(self.backbone(inputs).mean((2, 3)))
        return dict(loss=F.cross_entropy(logits, label)) if mode == 'loss' else logits
