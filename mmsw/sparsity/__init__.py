"""What is pruned: masks of a network, how they are chosen, and what they leave."""

from .masks import lost_zeros, masked_layers, masks, set_masks
from .report import Density, SparsityReport, report
from .select import keep_largest, magnitude_masks

__all__ = [
    'Density',
    'SparsityReport',
    'keep_largest',
    'lost_zeros',
    'magnitude_masks',
    'masked_layers',
    'masks',
    'report',
    'set_masks',
]
