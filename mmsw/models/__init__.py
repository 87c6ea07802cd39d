"""Networks and layers, registered in mmengine's root registry."""

from .backbones import ShiftWiseNet, SLaK
from .layers import ShiftWiseConv2d
from .necks import PooledNorm

__all__ = ['PooledNorm', 'SLaK', 'ShiftWiseConv2d', 'ShiftWiseNet']
