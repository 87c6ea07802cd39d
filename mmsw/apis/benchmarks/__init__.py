"""Benchmarks of training, and what they have in common."""
