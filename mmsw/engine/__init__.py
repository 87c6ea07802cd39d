"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import (
    DistillationHook,
    DynamicSparsityHook,
    KeepSparsityHook,
    MonitorHook,
    SparsityReportHook,
)
from .optimizers import LayerDepthDecayOptimWrapperConstructor

__all__ = [
    'DistillationHook',
    'DynamicSparsityHook',
    'KeepSparsityHook',
    'LayerDepthDecayOptimWrapperConstructor',
    'MonitorHook',
    'SparsityReportHook',
]
