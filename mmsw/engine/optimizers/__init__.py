"""Optimizer constructors, registered in mmengine's root registry."""

from .layer_depth_decay import LayerDepthDecayOptimWrapperConstructor

__all__ = ['LayerDepthDecayOptimWrapperConstructor']
