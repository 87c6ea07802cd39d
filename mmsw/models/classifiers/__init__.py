"""Classifiers that a backbone is pretrained in."""

from .cutout_preprocessor import CutoutPreprocessor
from .pooled_classifier import PooledClassifier

__all__ = ['CutoutPreprocessor', 'PooledClassifier']
