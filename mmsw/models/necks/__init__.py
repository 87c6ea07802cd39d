"""What stands between a backbone and a classifier."""

from .pooled_norm import PooledNorm

__all__ = ['PooledNorm']
