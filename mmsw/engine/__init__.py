"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import DynamicSparsityHook, SparsityReportHook
from .optimizers import LayerDepthDecayOptimWrapperConstructor

__all__ = ['DynamicSparsityHook', 'LayerDepthDecayOptimWrapperConstructor', 'SparsityReportHook']
