"""Pruning a trained checkpoint of any config, and what that leaves."""

from .prune import prune_model
from .report import PruneReport

__all__ = ['PruneReport', 'prune_model']
