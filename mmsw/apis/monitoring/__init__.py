"""Logging a run to TensorBoard or Weights & Biases, beside its work folder."""

from .backends import enable_monitoring, start_explained

__all__ = ['enable_monitoring', 'start_explained']
