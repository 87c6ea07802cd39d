"""Exporting trained models to files that run without them, and running such files."""

from .export import export_model
from .exported_model import ExportedModel, load_exported
from .report import ExportReport

__all__ = ['ExportReport', 'ExportedModel', 'export_model', 'load_exported']
