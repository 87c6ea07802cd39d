"""Parameters and multiply-adds of a network, dense and pruned, see ``tools/get_flops.py``."""

from .count import Complexity, Cost, complexity

__all__ = ['Complexity', 'Cost', 'complexity']
