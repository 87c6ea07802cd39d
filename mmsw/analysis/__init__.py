"""Looking at networks and at the operator; plots need matplotlib."""

from .operator_picture import draw_operator
from .receptive_field.gradient import effective_receptive_field

__all__ = ['draw_operator', 'effective_receptive_field']
