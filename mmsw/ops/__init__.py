"""The shift-wise operator: its pattern, its two entry points and its backends."""

from mmsw.errors import BackendUnavailableError

from .backends import available_backends, use_backend
from .decomposition import DepthwiseDecomposition, decompose_depthwise
from .depthwise import depthwise_conv2d
from .functional import cross_conv2d, shift_add, shift_wise_conv2d
from .hidden_map import bias_gelu
from .pattern import ShiftPattern
from .work import count_flops_of_operators

__all__ = [
    'BackendUnavailableError',
    'DepthwiseDecomposition',
    'ShiftPattern',
    'available_backends',
    'bias_gelu',
    'cross_conv2d',
    'decompose_depthwise',
    'depthwise_conv2d',
    'shift_add',
    'shift_wise_conv2d',
    'use_backend',
]

count_flops_of_operators()
