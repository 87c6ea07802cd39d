"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import DynamicSparsityHook, KeepSparsityHook, MonitorHook, SparsityReportHook
from .optimizers import LayerDepthDecayOptimWrapperConstructor
from .zeros_after_steps import keep_zero_after_steps

__all__ = [
    'DynamicSparsityHook',
    'KeepSparsityHook',
    'LayerDepthDecayOptimWrapperConstructor',
    'MonitorHook',
    'SparsityReportHook',
    'keep_zero_after_steps',
]
