"""Hooks for mmengine's runner."""

from .dynamic_sparsity_hook import DynamicSparsityHook
from .sparsity_report_hook import SparsityLostError, SparsityReportHook

__all__ = ['DynamicSparsityHook', 'SparsityLostError', 'SparsityReportHook']
