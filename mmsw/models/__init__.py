"""Networks and layers, registered in mmengine's root registry."""

from .backbones import ShiftWiseNet
from .classifiers import CutoutPreprocessor, PooledClassifier
from .layers import ShiftWiseConv2d
from .narrow_init import NarrowInit, draw_small_network
from .necks import PooledNorm

__all__ = [
    'CutoutPreprocessor',
    'NarrowInit',
    'PooledClassifier',
    'PooledNorm',
    'ShiftWiseConv2d',
    'ShiftWiseNet',
    'draw_small_network',
]
