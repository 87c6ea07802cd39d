"""Means, spreads and paired differences of finished runs, and what can be said from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

REFERENCE = 'dense'  # differences are relative to it
# 97.5% quantiles of Student's t with 1 to 30 degrees of freedom. With more, the last one serves and
# makes the intervals a little too wide.
_T = (
    *(12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814),
    *(2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596),
    *(2.07961, 2.07387, 2.06866, 2.06390, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227),
)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation.

    Attributes:
        mean: Of the values; NaN without any.
        deviation: Divided by n - 1; NaN for fewer than two values, or where one is NaN.
        n: Number of values.
    """

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of any number of values."""
        spreads = len(values) > 1 and all(map(math.isfinite, values))  # stdev fails on NaN
        return cls(
            statistics.fmean(values) if values else math.nan,
            statistics.stdev(values) if spreads else math.nan,
            len(values),
        )

    def text(self, digits: int = 2) -> str:
        """``12.34 ± 0.56``, without the spread where it is unknown."""
        if not self.n:
            return 'missing'
        if math.isnan(self.deviation):
            return f'{self.mean:.{digits}f}'
        return f'{self.mean:.{digits}f} ± {self.deviation:.{digits}f}'

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% confidence interval of the mean, by Student's t; None without a deviation."""
        if math.isnan(self.deviation):
            return None
        half = _T[min(self.n - 1, len(_T)) - 1] * self.deviation / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def signed_text(self) -> str:
        """Of a difference: ``+0.70 [0.25, 1.15]``, without the interval where it is unknown."""
        if not self.n:
            return 'missing'
        if self.interval is None:
            return f'{self.mean:+.2f}'
        low, high = self.interval
        return f'{self.mean:+.2f} [{low:.2f}, {high:.2f}]'

    def numbers(self) -> dict[str, Any]:
        """For JSON; None stands for what is unknown."""
        return {
            'mean': None if math.isnan(self.mean) else self.mean,
            'deviation': None if math.isnan(self.deviation) else self.deviation,
            'interval_95': None if self.interval is None else list(self.interval),
            'n': self.n,
        }


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        wanted: Number of runs that were to be done; 0 where they make no sense.
        results: Finished runs, by seed.
    """

    wanted: int
    results: dict[int, dict[str, Any]]

    def spread(self, value: Callable[[dict[str, Any]], float]) -> Spread:
        """Of something in the results, over the seeds."""
        return Spread.of([value(result) for result in self.results.values()])

    def against(self, other: Group, value: Callable[[dict, dict], float]) -> Spread:
        """Of a comparison of a result with the other's, over the seeds that both have."""
        seeds = sorted(seed for seed in self.results if seed in other.results)
        return Spread.of([value(self.results[seed], other.results[seed]) for seed in seeds])

    @property
    def seeds(self) -> str:
        """How many runs are finished, in words."""
        if not self.wanted:
            return 'n/a'
        done = len(self.results)
        return str(done) if done == self.wanted else f'{done} of {self.wanted}'


@dataclass(frozen=True, eq=False)
class Row(Group):
    """All runs of one network from one start.

    Attributes:
        network: Its name.
        task: ``'seg'`` or ``'det'``.
        start: Where it started.
    """

    network: str
    task: str
    start: str

    @property
    def scores(self) -> list[str]:
        """Names of the scores; none without results."""
        return list(next(iter(self.results.values()))['scores']) if self.results else []

    def score(self, name: str) -> Spread:
        """Of a final score over the seeds."""
        known = [r['scores'] for r in self.results.values() if name in r['scores']]
        return Spread.of([scores[name] for scores in known])

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
    return row.against(reference, lambda one, other: one['scores'][score] - other['scores'][score])


@dataclass(frozen=True)
class Comparison:
    """One start against the reference, in one score.

    Attributes:
        name: What is compared, in words.
        reference: What it is compared with.
        difference: Over the seeds that both have, in the unit of the score.
    """

    name: str
    reference: str
    difference: Spread


def compare(rows: Sequence[Row], score: str) -> list[Comparison]:
    """Every start of one network with its reference.

    The reference is ``'dense'``, or the first start of the network where ``'dense'`` is not asked
    for. It is never chosen by its results: the best of several starts is partly the luckiest.

    Args:
        rows: The starts of one network.
        score: Name of a score.

    Returns:
        One comparison for each start but the reference, in the order of the rows.
    """
    wanted = [row for row in rows if row.wanted]
    reference = next((row for row in wanted if row.start == REFERENCE), next(iter(wanted), None))
    return [
        Comparison(
            f'{row.network}, {row.start}, {score}',
            reference.start,
            paired_difference(row, reference, score),
        )
        for row in wanted
        if row is not reference
    ]


def compare_networks(rows: Sequence[Row], score: str) -> list[Comparison]:
    """Every network with the first one, where each has one start.

    Args:
        rows: The networks of one task.
        score: Name of a score.

    Returns:
        One comparison for each network but the first; none where one has several starts.
    """
    wanted = [row for row in rows if row.wanted]
    if len({row.network for row in wanted}) < len(wanted):
        return []
    return [
        Comparison(
            f'{row.network}, {score}', wanted[0].network, paired_difference(row, wanted[0], score)
        )
        for row in wanted[1:]
    ]


def conclude(comparisons: Sequence[Comparison]) -> str:
    """What paired differences say: how many were tried, and which of them exclude zero.

    Args:
        comparisons: All that one report makes, in per cent.

    Returns:
        A few sentences.
    """
    known = [item for item in comparisons if item.difference.interval is not None]
    unknown = [item.name for item in comparisons if item.difference.interval is None]
    sentences = []
    if known:
        sizes = sorted({item.difference.n for item in known})
        references = ' or '.join(dict.fromkeys(item.reference for item in known))
        sentences.append(
            f'{_count(len(known), "comparison")} with {references}, paired by seed '
            f'({" to ".join(map(str, sizes[:1] + sizes[1:][-1:]))} seeds): mean difference in '
            'percentage points and its 95% t interval, no correction for the number of comparisons.'
        )
        told = [item for item in known if _excludes_zero(item.difference)]
        if told:
            found = '; '.join(f'{item.name}: {item.difference.signed_text()}' for item in told)
            sentences.append(f'The interval excludes zero in {len(told)}: {found}.')
        if len(told) < len(known):
            sentences.append(
                f'It includes zero in the other {len(known) - len(told)}: these runs show no '
                'difference there.'
                if told
                else 'The interval includes zero in all: these runs show no difference.'
            )
    if unknown:
        sentences.append(f'Fewer than two common seeds, so not known: {"; ".join(unknown)}.')
    return ' '.join(sentences) or 'Nothing to compare: fewer than two starts.'


def _excludes_zero(difference: Spread) -> bool:
    low, high = difference.interval
    return low > 0 or high < 0


def _count(number: int, what: str) -> str:
    return f'{number} {what}' if number == 1 else f'{number} {what}s'
