"""What a pruned network keeps, part by part, see ``tools/analyze_sparsity.py``."""

from .comparison import SparsityComparison, compare
from .comparison_text import comparison_table
from .figures import SparsityAnalysis, analyze
from .layers import MaskedNetwork, read_network
from .table import first_layer_table, sparsity_table

__all__ = [
    'MaskedNetwork',
    'SparsityAnalysis',
    'SparsityComparison',
    'analyze',
    'compare',
    'comparison_table',
    'first_layer_table',
    'read_network',
    'sparsity_table',
]
