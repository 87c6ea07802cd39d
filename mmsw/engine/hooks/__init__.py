"""Hooks for mmengine's runner."""

from .distillation_hook import DistillationHook
from .dynamic_sparsity_hook import DynamicSparsityHook
from .gradual_pruning_hook import GradualPruningHook
from .keep_sparsity_hook import KeepSparsityHook
from .memory_hook import MemoryHook
from .monitor_hook import MonitorHook
from .run_end_hook import RunEndHook
from .sparsity_report_hook import SparsityLostError, SparsityReportHook

__all__ = [
    'DistillationHook',
    'DynamicSparsityHook',
    'GradualPruningHook',
    'KeepSparsityHook',
    'MemoryHook',
    'MonitorHook',
    'RunEndHook',
    'SparsityLostError',
    'SparsityReportHook',
]
