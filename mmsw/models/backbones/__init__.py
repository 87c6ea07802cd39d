"""Backbones."""

from .shiftwise_net import ShiftWiseNet
from .slak import SLaK

__all__ = ['SLaK', 'ShiftWiseNet']
