"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import (
    DynamicSparsityHook,
    GradualPruningHook,
    KeepSparsityHook,
    MonitorHook,
    SparsityReportHook,
)
from .optimizers import LayerDepthDecayOptimWrapperConstructor

__all__ = [
    'DynamicSparsityHook',
    'GradualPruningHook',
    'KeepSparsityHook',
    'LayerDepthDecayOptimWrapperConstructor',
    'MonitorHook',
    'SparsityReportHook',
]
