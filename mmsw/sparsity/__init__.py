"""What is pruned: masks of a network and what they leave."""

from .masks import lost_zeros, masked_layers, masks, set_masks
from .report import Density, SparsityReport, report

__all__ = [
    'Density',
    'SparsityReport',
    'lost_zeros',
    'masked_layers',
    'masks',
    'report',
    'set_masks',
]
