"""Options of one word that reach every place of a config in which their value lives."""

from .crop_size import set_crop_size
from .one_word import take_one_word_options
from .run_length import set_max_epochs, set_max_iters

__all__ = ['set_crop_size', 'set_max_epochs', 'set_max_iters', 'take_one_word_options']
