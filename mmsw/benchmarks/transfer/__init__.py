"""The benchmark of downstream transfer, see ``tools/benchmark_transfer.py``."""
