"""Runs of one method and sparsity together: means, spreads and ratios over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..comparison import Group, Row, Spread, compare, conclude
from ..report import unequal
from ..runs import finished
from .operator_time import operator_of
from .plan import DENSE, SparsityRun

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
class Cell(Group):
    """All runs of one method at one sparsity.

    Attributes:
        method: One of ``METHODS``.
        sparsity: Share that is pruned; 0 for dense.
        operators: Measurements of the operators of finished runs, by seed.
    """

    method: str
    sparsity: float
    operators: dict[int, dict[str, Any]]

    def operator(self, value: Callable[[dict[str, Any]], float]) -> Spread:
        """Of something in the measurements of the operators, over the seeds."""
        return Spread.of([value(found) for found in self.operators.values()])


def make_cells(runs: Sequence[SparsityRun]) -> list[Cell]:
    """One cell for every method and sparsity, in the order of the plan, with what is finished."""
    cells: dict[tuple[str, float], list[SparsityRun]] = {}
    for run in runs:
        cells.setdefault((run.method, run.sparsity), []).append(run)
    made = []
    for (method, sparsity), own in cells.items():
        results = {run.seed: result for run, result in finished(own)}
        found = {run.seed: operator_of(run) for run in own if run.seed in results}
        operators = {seed: operator for seed, operator in found.items() if operator is not None}
        made.append(Cell(len(own), results, method, sparsity, operators))
    return made


def inexact(runs: Sequence[SparsityRun]) -> list[str]:
    """Runs that kept another number than asked for, or saved a pruned weight that is not zero."""
    odd = []
    for run, result in finished(runs):
        kept = [result[key] for key in ('kept', 'kept_at_start', 'kept_wanted')]
        if len(set(kept)) > 1:
            odd.append(f'{run.name} keeps {kept[0]}, {kept[1]} at the start, of {kept[2]} wanted')
        if result['pruned_but_not_zero']:
            odd.append(
                f'{run.name} has {result["pruned_but_not_zero"]} pruned weights that are not zero'
            )
    return odd


def unequal_conditions(runs: Sequence[SparsityRun]) -> list[str]:
    """Runs of one seed that did not begin as the others, or saw other data."""
    alike = [run for run in runs if run.method in ('static', 'filter')]
    return sorted(
        unequal(runs, lambda run: run.seed, _CONDITIONS)
        + unequal(alike, lambda run: (run.seed, run.sparsity), ['masks_at_start'])
    )


def conclusions(cells: Sequence[Cell]) -> str:
    """Whether the methods differ in accuracy by more than seeds do, at each sparsity."""
    found = []
    for sparsity in sorted({cell.sparsity for cell in cells if cell.method != DENSE}):
        own = [cell for cell in cells if cell.method == DENSE or cell.sparsity == sparsity]
        rows = []
        for cell in own:
            scores = {s: {'scores': {'accuracy': r['accuracy']}} for s, r in cell.results.items()}
            rows.append(Row(cell.wanted, scores, f'{sparsity:.0%} pruned', 'cls', cell.method))
        found += compare(rows, 'accuracy')
    return conclude(found)
