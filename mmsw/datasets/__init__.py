"""Loading that says what is wrong with data."""

from mmsw.errors import DataError

from .loading import LoadValidAnnotations, LoadValidImageFromFile
from .own_data import OwnData

__all__ = ['DataError', 'LoadValidAnnotations', 'LoadValidImageFromFile', 'OwnData']
