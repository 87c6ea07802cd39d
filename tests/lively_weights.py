"""Random weights with which small models of both toolboxes give results worth comparing."""

from __future__ import annotations

import torch
from torch import nn


def randomise(model: nn.Module) -> None:
    """Weights and statistics with which different images give different results."""
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if name.endswith(('conv_seg.weight', 'retina_cls.weight', 'retina_reg.weight')):
                param.normal_(std=0.2)
