"""What a pruned network keeps, part by part, see ``tools/analyze_sparsity.py``."""

from .any_comparison import NetworkComparison, compare_networks, network_comparison_table
from .any_network import LayersOfPart, NetworkSparsity, PrunedLayer, read_any_network
from .any_network_table import network_table
from .comparison import SparsityComparison, compare
from .comparison_text import comparison_table
from .figures import SparsityAnalysis, analyze
from .layers import MaskedNetwork, read_network
from .table import first_layer_table, sparsity_table

__all__ = [
    'LayersOfPart',
    'MaskedNetwork',
    'NetworkComparison',
    'NetworkSparsity',
    'PrunedLayer',
    'SparsityAnalysis',
    'SparsityComparison',
    'analyze',
    'compare',
    'compare_networks',
    'comparison_table',
    'first_layer_table',
    'network_comparison_table',
    'network_table',
    'read_any_network',
    'read_network',
    'sparsity_table',
]
