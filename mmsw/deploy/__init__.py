"""Whole models in the form for inference: backbone, neck and heads folded."""

from .fold import FoldReport, fold_model, take_folded_form

__all__ = ['FoldReport', 'fold_model', 'take_folded_form']
