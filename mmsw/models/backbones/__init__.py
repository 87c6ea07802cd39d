"""Backbones for dense prediction."""

from .shiftwise_net import ShiftWiseNet

__all__ = ['ShiftWiseNet']
