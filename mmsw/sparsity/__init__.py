"""What is pruned: masks of a network, how they are chosen, and what they leave.

- Masks of layers: ``layer_masks`` (read, set, check), ``attach`` (layers that bring none),
  ``zeros`` (layers whose weights have zeros already), ``patterns`` (the structure of a mask),
  ``torch_prune`` and ``foreign_masks`` (masks of other programs), ``averaging``, ``density``
  (report).
- Units, what is pruned in one piece: ``granularity`` (filters, channels, blocks, N of M, weights),
  ``units`` (as vectors), ``select`` (the best of one layer), ``allocate`` (how many in which
  layer), ``choice`` (both at once).
- Pruning at once or step by step: ``pruning``, with ``prunable`` (of which layers).
- Dynamic sparse training: ``dynamic`` in the order of things, with ``dynamic_settings`` and
  ``dynamic_state`` (what a checkpoint holds); ``start``; ``exchange`` (one vector),
  ``layer_exchange`` (the paths of a layer), ``group_exchange`` (N of M weights) and
  ``redistribution`` (between layers);
  ``dense_gradients`` and ``optimizer_state``.
"""

from .allocate import apportion, erk_counts, keep_best, uniform_counts
from .attach import attach_masks, attach_saved_masks
from .averaging import masks_copied
from .dense_gradients import DenseGradients
from .density import Density, SparsityReport, report
from .dynamic import DynamicSparsity
from .dynamic_settings import DynamicSettings
from .exchange import drop_and_grow, exchange_rate, num_exchanged, shared_units
from .layer_masks import layer_of, lost_zeros, masked_layers, masks, masks_from_zeros, set_masks
from .optimizer_state import reset_state
from .patterns import Pattern, pattern_of
from .pruning import Pruning, PruningSettings
from .select import keep_largest, magnitude_masks
from .torch_prune import from_torch_prune
from .zeros import ZerosFound, attach_masks_of_zeros

__all__ = [
    'DenseGradients',
    'Density',
    'DynamicSettings',
    'DynamicSparsity',
    'Pattern',
    'Pruning',
    'PruningSettings',
    'SparsityReport',
    'ZerosFound',
    'apportion',
    'attach_masks',
    'attach_masks_of_zeros',
    'attach_saved_masks',
    'drop_and_grow',
    'erk_counts',
    'exchange_rate',
    'from_torch_prune',
    'keep_best',
    'keep_largest',
    'layer_of',
    'lost_zeros',
    'magnitude_masks',
    'masked_layers',
    'masks',
    'masks_copied',
    'masks_from_zeros',
    'num_exchanged',
    'pattern_of',
    'report',
    'reset_state',
    'set_masks',
    'shared_units',
    'uniform_counts',
]
