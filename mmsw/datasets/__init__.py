"""Loading that says what is wrong with data."""

from mmsw.errors import DataError

from .label_values import MapLabelValues
from .loading import LoadValidAnnotations, LoadValidImageFromFile
from .own_data import OwnData

__all__ = [
    'DataError',
    'LoadValidAnnotations',
    'LoadValidImageFromFile',
    'MapLabelValues',
    'OwnData',
]
