"""Exporting trained models to files that run without them, and running such files."""

from .exported_model import ExportedModel, load_exported

__all__ = ['ExportedModel', 'load_exported']
