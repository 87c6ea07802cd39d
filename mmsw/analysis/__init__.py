"""Looking at networks and at the operator; plots need matplotlib."""

from .operator_picture import draw_operator

__all__ = ['draw_operator']
