"""Networks and layers, registered in mmengine's root registry."""

from .backbones import ShiftWiseNet, SLaK
from .convert_large_kernels import LargeKernelReport, convert_large_kernels
from .layers import ShiftWiseConv2d, ShiftWiseLargeKernel
from .necks import PooledNorm

__all__ = [
    'LargeKernelReport',
    'PooledNorm',
    'SLaK',
    'ShiftWiseConv2d',
    'ShiftWiseLargeKernel',
    'ShiftWiseNet',
    'convert_large_kernels',
]
