"""Data that needs no download."""

from .demo_scenes import CLASSES, COCO_CLASSES, PALETTE, DemoData, make_demo_data

__all__ = ['CLASSES', 'COCO_CLASSES', 'PALETTE', 'DemoData', 'make_demo_data']
