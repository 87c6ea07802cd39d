"""The demonstration: scenes that need no download, a short pretraining, its report and picture.

Importing the package registers what the demonstration's configs name. Those configs ask for it by
``custom_imports``; ``import mmsw`` does without.
"""

from .classifier import DemoClassifier
from .cutout_preprocessor import DemoCutoutPreprocessor
from .cutouts import DemoCutouts
from .label_accuracy import DemoLabelAccuracy
from .narrow_init import DemoNarrowInit, draw_small_network
from .scenes import CLASSES, COCO_CLASSES, PALETTE, DemoData, make_demo_data

__all__ = [
    'CLASSES',
    'COCO_CLASSES',
    'PALETTE',
    'DemoClassifier',
    'DemoCutoutPreprocessor',
    'DemoCutouts',
    'DemoData',
    'DemoLabelAccuracy',
    'DemoNarrowInit',
    'draw_small_network',
    'make_demo_data',
]
