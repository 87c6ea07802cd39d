"""Building blocks of the shift-wise networks."""

from .depthwise_conv import DepthwiseConv2d
from .masked_filters import MaskedFilters
from .norms import GlobalResponseNorm, LayerNorm2d
from .shiftwise_conv import ShiftWiseConv2d
from .shiftwise_large_kernel import ShiftWiseLargeKernel
from .squeeze_excitation import SqueezeExcitation

__all__ = [
    'DepthwiseConv2d',
    'GlobalResponseNorm',
    'LayerNorm2d',
    'MaskedFilters',
    'ShiftWiseConv2d',
    'ShiftWiseLargeKernel',
    'SqueezeExcitation',
]
