"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import (
    DistillationHook,
    DynamicSparsityHook,
    GradualPruningHook,
    KeepSparsityHook,
    MonitorHook,
    SparsityReportHook,
)
from .optimizers import LayerDepthDecayOptimWrapperConstructor
from .zeros_after_steps import keep_zero_after_steps

__all__ = [
    'DistillationHook',
    'DynamicSparsityHook',
    'GradualPruningHook',
    'KeepSparsityHook',
    'LayerDepthDecayOptimWrapperConstructor',
    'MonitorHook',
    'SparsityReportHook',
    'keep_zero_after_steps',
]
