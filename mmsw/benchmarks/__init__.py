"""Benchmarks that anyone can re-run: of the operator, of sparse training, of downstream transfer.

Each plans its measurements, runs them and writes a report; what they have in common stands here.
"""
