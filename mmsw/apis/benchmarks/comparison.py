"""Means, spreads and differences of finished runs, and what can be said from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REFERENCE = 'dense'  # differences are relative to it


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation.

    Attributes:
        mean: Of the values; NaN without any.
        deviation: Divided by n - 1; NaN for fewer than two values.
        n: Number of values.
    """

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of any number of values."""
        return cls(
            statistics.fmean(values) if values else math.nan,
            statistics.stdev(values) if len(values) > 1 else math.nan,
            len(values),
        )

    def text(self, digits: int = 2) -> str:
        """``12.34 ± 0.56``, without the spread where it is unknown."""
        if not self.n:
            return 'missing'
        if math.isnan(self.deviation):
            return f'{self.mean:.{digits}f}'
        return f'{self.mean:.{digits}f} ± {self.deviation:.{digits}f}'


@dataclass(frozen=True, eq=False)
class Row:
    """All runs of one network from one start.

    Attributes:
        network: Its name.
        task: ``'seg'`` or ``'det'``.
        start: Where it started.
        results: Finished runs, by seed.
        wanted: Number of runs that were to be done; 0 where the start makes no sense.
    """

    network: str
    task: str
    start: str
    results: dict[int, dict[str, Any]]
    wanted: int

    @property
    def scores(self) -> list[str]:
        """Names of the scores; none without results."""
        return list(next(iter(self.results.values()))['scores']) if self.results else []

    def spread(self, score: str) -> Spread:
        """Of a final score over the seeds."""
        return Spread.of(
            [r['scores'][score] for r in self.results.values() if score in r['scores']]
        )

    def mean(self, *keys: str) -> float | None:
        """Of any number in the results; None where one is unknown."""
        values = []
        for result in self.results.values():
            for key in keys:
                result = result[key]
            values.append(result)
        return statistics.fmean(values) if values and None not in values else None


def paired_difference(row: Row, reference: Row, score: str) -> Spread:
    """Differences to the reference, seed by seed, over the seeds that both have."""
    return Spread.of(
        [
            row.results[seed]['scores'][score] - reference.results[seed]['scores'][score]
            for seed in sorted(row.results)
            if seed in reference.results
        ]
    )


def conclude(rows: Sequence[Row], score: str) -> str:
    """Which start of one network is best, and whether by more than seeds differ.

    A difference counts as larger than the spread if it exceeds the larger standard deviation of the
    two starts compared.
    """
    known = [row for row in rows if row.results]
    if not known:
        return f'No finished run of {rows[0].network}.' if rows else 'No runs.'
    name = known[0].network
    if len(known) == 1:
        row = known[0]
        return f'{name}: {score} {row.spread(score).text()} from {row.start}, the only start.'
    ordered = sorted(known, key=lambda row: -row.spread(score).mean)
    best = ordered[0]
    sentences = [
        f'{name}: the best mean {score} is that of {best.start}, {best.spread(score).text()}.'
    ]
    sentences.append(_compare(best, ordered[1], score, f'the next best, {ordered[1].start}'))
    reference = next((row for row in known if row.start == REFERENCE), None)
    if reference is not None:
        for row in ordered:
            told = reference in ordered[:2] and row in ordered[:2]
            if row is not reference and not told:
                sentences.append(_compare(row, reference, score, reference.start))
    return ' '.join(sentences)


def _compare(row: Row, other: Row, score: str, name: str) -> str:
    difference = paired_difference(row, other, score)
    if not difference.n:
        return f'{row.start} has no seed in common with {name}.'
    gap = difference.mean
    where = 'above' if gap > 0 else 'below'
    text = f'{row.start} is {abs(gap):.2f} {where} {name}' if gap else f'{row.start} equals {name}'
    deviations = [item.spread(score).deviation for item in (row, other)]
    if difference.n < 2 or any(math.isnan(value) for value in deviations):
        return f'{text}, in the only seed: the spread is not known.'
    same = sum(
        (row.results[seed]['scores'][score] - other.results[seed]['scores'][score]) * gap > 0
        for seed in row.results
        if seed in other.results
    )
    spread = max(deviations)
    verdict = (
        f'more than the seed-to-seed spread of {spread:.2f}'
        if abs(gap) > spread
        else f'within the seed-to-seed spread of {spread:.2f}, so these runs do not tell them apart'
    )
    return f'{text} ({same} of {difference.n} seeds agree in sign): {verdict}.'
