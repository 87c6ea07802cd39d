"""Metrics for mmengine's evaluator."""

from .label_accuracy import LabelAccuracy

__all__ = ['LabelAccuracy']
