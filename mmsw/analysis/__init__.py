"""Looking at networks and at the operator; plots need matplotlib."""

from .operator_benchmark import benchmark_ops
from .operator_picture import draw_operator

__all__ = ['benchmark_ops', 'draw_operator']
