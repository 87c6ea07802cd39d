"""The effective receptive field of a network: what the centre of a map depends on, and how far."""

from .area import SHARES, Square, high_contribution_squares, log_scores
from .gradient import ReceptiveField, effective_receptive_field
from .start import closed_scales, open_scales

__all__ = [
    'SHARES',
    'ReceptiveField',
    'Square',
    'closed_scales',
    'effective_receptive_field',
    'high_contribution_squares',
    'log_scores',
    'open_scales',
]
