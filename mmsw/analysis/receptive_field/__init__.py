"""The effective receptive field of a network: what the centre of a map depends on, and how far."""

from .area import Square, high_contribution_squares, log_scores
from .gradient import ReceptiveField
from .start import calibrate_norms, closed_scales, open_scales

__all__ = [
    'ReceptiveField',
    'Square',
    'calibrate_norms',
    'closed_scales',
    'high_contribution_squares',
    'log_scores',
    'open_scales',
]
