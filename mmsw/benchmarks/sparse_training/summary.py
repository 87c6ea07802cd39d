"""Runs of one method and sparsity together: means, spreads and ratios over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..comparison import Row, Spread, compare, conclude
from ..runs import result_of
from .operator_time import operator_of
from .plan import DENSE, Run

# What must be the same in all runs of a seed.
_CONDITIONS = (
    'weights_at_start',
    'rest_at_start',
    'random_at_start',
    'random_at_end',
    'first_batches',
    'last_batch',
)


@dataclass(frozen=True, eq=False)
class Cell:
    """All runs of one method at one sparsity.

    Attributes:
        method: One of ``METHODS``.
        sparsity: Share that is pruned; 0 for dense.
        wanted: Number of runs that were to be done.
        results: Finished runs, by seed.
        operators: Measurements of their operators, by seed.
    """

    method: str
    sparsity: float
    wanted: int
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    operators: dict[int, dict[str, Any]] = field(default_factory=dict)

    def spread(self, value: Callable[[dict[str, Any]], float]) -> Spread:
        """Of something in the results, over the seeds."""
        return Spread.of([value(result) for result in self.results.values()])

    def operator(self, value: Callable[[dict[str, Any]], float]) -> Spread:
        """Of something in the measurements of the operators, over the seeds."""
        return Spread.of([value(found) for found in self.operators.values()])

    def against(self, other: Cell, value: Callable[[dict, dict], float]) -> Spread:
        """Of a comparison of this cell's result with another's, seed by seed."""
        seeds = [seed for seed in self.results if seed in other.results]
        return Spread.of([value(self.results[seed], other.results[seed]) for seed in seeds])


def make_cells(runs: Sequence[Run]) -> list[Cell]:
    """One cell for every method and sparsity, in the order of the plan, with what is finished."""
    cells: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.method, run.sparsity), []).append(run)
    made = []
    for (method, sparsity), own in cells.items():
        cell = Cell(method, sparsity, len(own))
        for run in own:
            result, operator = result_of(run), operator_of(run)
            if result is not None:
                cell.results[run.seed] = result
            if result is not None and operator is not None:
                cell.operators[run.seed] = operator
        made.append(cell)
    return made


def inexact(runs: Sequence[Run]) -> list[str]:
    """Runs that kept another number than asked for, or saved a pruned weight that is not zero."""
    odd = []
    for run in runs:
        result = result_of(run)
        if result is None:
            continue
        kept = [result[key] for key in ('kept', 'kept_at_start', 'kept_wanted')]
        if len(set(kept)) > 1:
            odd.append(f'{run.name} keeps {kept[0]}, {kept[1]} at the start, of {kept[2]} wanted')
        if result['pruned_but_not_zero']:
            odd.append(
                f'{run.name} has {result["pruned_but_not_zero"]} pruned weights that are not zero'
            )
    return odd


def unequal_conditions(runs: Sequence[Run]) -> list[str]:
    """Runs of one seed that did not begin as the others, or saw other data."""
    first: dict[int, tuple[str, dict[str, Any]]] = {}
    masks: dict[tuple[int, float], tuple[str, str]] = {}  # of static and filter
    odd = []
    for run in runs:
        result = result_of(run)
        if result is None:
            continue
        name, other = first.setdefault(run.seed, (run.name, result))
        differing = [key for key in _CONDITIONS if result[key] != other[key]]
        if differing:
            odd.append(f'{run.name} (unlike {name} in {", ".join(differing)})')
        if run.method in ('static', 'filter'):
            own = (run.name, result['masks_at_start'])
            name, other = masks.setdefault((run.seed, run.sparsity), own)
            if own[1] != other:
                odd.append(f'{run.name} (unlike {name} in masks_at_start)')
    return odd


def conclusions(cells: Sequence[Cell]) -> str:
    """Whether the methods differ in accuracy by more than seeds do, at each sparsity."""
    found = []
    for sparsity in sorted({cell.sparsity for cell in cells if cell.method != DENSE}):
        own = [cell for cell in cells if cell.method == DENSE or cell.sparsity == sparsity]
        rows = []
        for cell in own:
            scores = {s: {'scores': {'accuracy': r['accuracy']}} for s, r in cell.results.items()}
            rows.append(Row(f'{sparsity:.0%} pruned', 'cls', cell.method, scores, cell.wanted))
        found += compare(rows, 'accuracy')
    return conclude(found)
