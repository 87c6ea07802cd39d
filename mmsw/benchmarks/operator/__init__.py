"""The benchmark of the operator's backends, see ``tools/benchmark_ops.py``."""
