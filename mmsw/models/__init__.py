"""Networks and layers, registered in mmengine's root registry."""

from .backbones import ShiftWiseNet
from .layers import ShiftWiseConv2d
from .necks import PooledNorm

__all__ = ['PooledNorm', 'ShiftWiseConv2d', 'ShiftWiseNet']
