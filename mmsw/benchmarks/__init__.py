"""Benchmarks that anyone can re-run: of the operator, of sparse training, of downstream transfer.

A benchmark of training is a ``Study`` (``study.py``). Its folder holds what differs: what is
trained (``plan.py``), what a training does beside learning (``hook.py``), and what is reported
(``report.py``, ``plot.py``). What such benchmarks have in common stands here.
"""
