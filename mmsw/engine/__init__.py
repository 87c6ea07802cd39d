"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import DynamicSparsityHook, KeepSparsityHook, MonitorHook, SparsityReportHook
from .optimizers import LayerDepthDecayOptimWrapperConstructor

__all__ = [
    'DynamicSparsityHook',
    'KeepSparsityHook',
    'LayerDepthDecayOptimWrapperConstructor',
    'MonitorHook',
    'SparsityReportHook',
]
