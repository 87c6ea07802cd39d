"""Own data: one dict of a config, ``own_data``, from which all that depends on the data follows."""

from .fill import fill_in, has_own_data
from .options import apply_options, refuse_options

__all__ = ['apply_options', 'fill_in', 'has_own_data', 'refuse_options']
