"""Training-time components for mmengine: hooks and optimizer constructors."""

from .hooks import SparsityReportHook
from .optimizers import LayerDepthDecayOptimWrapperConstructor

__all__ = ['LayerDepthDecayOptimWrapperConstructor', 'SparsityReportHook']
