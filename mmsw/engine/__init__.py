"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import DynamicSparsityHook, MonitorHook, SparsityReportHook
from .optimizers import LayerDepthDecayOptimWrapperConstructor

__all__ = [
    'DynamicSparsityHook',
    'LayerDepthDecayOptimWrapperConstructor',
    'MonitorHook',
    'SparsityReportHook',
]
