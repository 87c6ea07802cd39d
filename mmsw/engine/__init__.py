"""Training-time components for mmengine."""

from .hooks import SparsityReportHook

__all__ = ['SparsityReportHook']
