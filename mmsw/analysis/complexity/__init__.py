"""Parameters and multiply-adds: of networks, counted, and of the method, in closed form.

See ``tools/get_flops.py`` and ``tools/analyze_complexity.py``.
"""

from .closed_forms import (
    complexity_ratio,
    shift_additions,
    shift_wise_macs,
    shift_wise_parameters,
    slak_pair_macs,
    slak_pair_parameters,
)
from .count import Complexity, Cost, complexity
from .cover import Cover, StageCover, layer_cover, network_cover, slot_overlaps, used_positions
from .kernel_counts import KernelCounts, KernelWork
from .kernels import kernel_work
from .modules import ModuleComparison, compare_modules

__all__ = [
    'Complexity',
    'Cost',
    'Cover',
    'KernelCounts',
    'KernelWork',
    'ModuleComparison',
    'StageCover',
    'compare_modules',
    'complexity',
    'complexity_ratio',
    'kernel_work',
    'layer_cover',
    'network_cover',
    'shift_additions',
    'shift_wise_macs',
    'shift_wise_parameters',
    'slak_pair_macs',
    'slak_pair_parameters',
    'slot_overlaps',
    'used_positions',
]
