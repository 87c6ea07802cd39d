"""Runs of one method and sparsity together: means, spreads and ratios over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..comparison import Comparison, Group, Row, Spread, compare, conclude
from ..report import unequal
from ..runs import finished
from .operator_time import operator_of
from .plan import DENSE, EXCHANGED, KEPT, SparsityRun

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
    alike = [run for run in runs if run.method in (KEPT, EXCHANGED)]
    return sorted(
        unequal(runs, lambda run: run.seed, _CONDITIONS)
        + unequal(alike, lambda run: (run.seed, run.sparsity), ['masks_at_start'])
    )


def dense_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """What a cell is compared with: the dense network; None for itself, or if it is absent."""
    return next((c for c in cells if c.method == DENSE and c is not cell), None)


def static_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The filters that SNIP chose, never exchanged, at the sparsity of an exchanging cell.

    None for a method that prunes nothing, whole filters for good, or single weights.
    """
    if cell.method != EXCHANGED:
        return None
    return next((c for c in cells if c.method == KEPT and c.sparsity == cell.sparsity), None)


def conclusions(cells: Sequence[Cell]) -> str:
    """What the paired differences in accuracy say: to dense, and what exchanging filters adds."""
    found = []
    for sparsity in sorted({cell.sparsity for cell in cells if cell.method != DENSE}):
        own = [cell for cell in cells if cell.method == DENSE or cell.sparsity == sparsity]
        rows = []
        for cell in own:
            scores = {s: {'scores': {'accuracy': r['accuracy']}} for s, r in cell.results.items()}
            rows.append(Row(cell.wanted, scores, f'{sparsity:.0%} pruned', 'cls', cell.method))
        found += compare(rows, 'accuracy')
    parts = [conclude(found)]
    if any(cell.method == DENSE for cell in cells):  # else static is the reference already
        pairs = [(cell, static_of(cell, cells)) for cell in cells]
        exchanged = [_compared(cell, static) for cell, static in pairs if static is not None]
        parts += [conclude(exchanged)] if exchanged else []
    return '\n\n'.join(parts)


def accuracy_gain(result: dict[str, Any], reference: dict[str, Any]) -> float:
    """Of a run over another one of the same seed, in percentage points."""
    return result['accuracy'] - reference['accuracy']


def _compared(cell: Cell, reference: Cell) -> Comparison:
    name = f'{cell.sparsity:.0%} pruned, {cell.method}, accuracy'
    return Comparison(name, reference.method, cell.against(reference, accuracy_gain))
