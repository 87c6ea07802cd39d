"""The benchmark of whole backbones, see ``tools/benchmark_model.py``."""
