"""What a pruned network keeps, part by part, see ``tools/analyze_sparsity.py``."""

from .figures import SparsityAnalysis, analyze
from .layers import MaskedNetwork, read_network
from .table import sparsity_table

__all__ = ['MaskedNetwork', 'SparsityAnalysis', 'analyze', 'read_network', 'sparsity_table']
