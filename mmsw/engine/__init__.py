"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import DistillationHook, DynamicSparsityHook, MonitorHook, SparsityReportHook
from .optimizers import LayerDepthDecayOptimWrapperConstructor

__all__ = [
    'DistillationHook',
    'DynamicSparsityHook',
    'LayerDepthDecayOptimWrapperConstructor',
    'MonitorHook',
    'SparsityReportHook',
]
