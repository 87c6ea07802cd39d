"""Networks and layers, registered in mmengine's root registry."""

from .backbones import ShiftWiseNet
from .layers import ShiftWiseConv2d

__all__ = ['ShiftWiseConv2d', 'ShiftWiseNet']
