"""Sparsity that grows step by step while a network trains, fast at first and slowly at the end."""

from __future__ import annotations

from dataclasses import dataclass

from .allocate import check_sparsity


@dataclass(frozen=True)
class CubicSchedule:
    """``final + (initial - final) * (1 - done) ** 3`` (Zhu and Gupta 2017, arXiv 1710.01878).

    ``done`` is the share of the way from ``begin`` to ``end``. The masks change at ``begin``, every
    ``interval`` iterations after it, and at ``end``.

    Attributes:
        final: Sparsity at the end, in ``[0, 1)``.
        begin: Iterations done before the first step.
        end: Iterations done before the last one; at least ``begin``.
        interval: Iterations between two steps, at least 1.
        initial: Sparsity of the first step, from 0 to ``final``.
    """

    final: float
    begin: int
    end: int
    interval: int
    initial: float = 0.0

    def __post_init__(self) -> None:
        check_sparsity(self.final)
        if not 0 <= self.initial <= self.final:
            raise ValueError(
                f'expected 0 <= initial <= sparsity, got initial={self.initial}, '
                f'sparsity={self.final}'
            )
        if not 0 <= self.begin <= self.end:
            raise ValueError(f'expected 0 <= begin <= end, got begin={self.begin}, end={self.end}')
        if self.interval < 1:
            raise ValueError(f'interval must be at least 1 iteration, got {self.interval}')

    def step_before(self, iterations: int) -> int | None:
        """The last step that is due after so many iterations, as iterations done; else ``None``."""
        if iterations < self.begin:
            return None
        if iterations >= self.end:
            return self.end
        return iterations - (iterations - self.begin) % self.interval

    def sparsity(self, step: int) -> float:
        """Sparsity from a step on, see :meth:`step_before`."""
        if step >= self.end:
            return self.final
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * left**3
