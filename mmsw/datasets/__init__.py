"""Data that needs no download, and loading that says what is wrong with data."""

from .demo_cutouts import DemoCutouts
from .demo_scenes import CLASSES, COCO_CLASSES, PALETTE, DemoData, make_demo_data
from .errors import DataError
from .loading import LoadValidAnnotations, LoadValidImageFromFile

__all__ = [
    'CLASSES',
    'COCO_CLASSES',
    'PALETTE',
    'DataError',
    'DemoCutouts',
    'DemoData',
    'LoadValidAnnotations',
    'LoadValidImageFromFile',
    'make_demo_data',
]
