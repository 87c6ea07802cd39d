"""Hooks for mmengine's runner."""

from .sparsity_report_hook import SparsityLostError, SparsityReportHook

__all__ = ['SparsityLostError', 'SparsityReportHook']
