"""The benchmark of sparse training, see ``tools/benchmark_sparsity.py``."""
