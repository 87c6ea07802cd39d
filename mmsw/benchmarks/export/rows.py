"""A row of the benchmark of exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..measure import timing_of

if TYPE_CHECKING:
    from mmsw.apis import ExportReport

Row = dict
TRAINED, FOLDED = 'as trained', 'folded'


def pytorch_row(
    model: str, form: str, scores: Mapping[str, float], size: int, weights: int, zeros: int
) -> Row:
    """What ``benchmark.json`` says of a model in PyTorch.

    Args:
        model: Its name.
        form: :data:`TRAINED` or :data:`FOLDED`.
        scores: In per cent.
        size: Bytes of its state dict.
        weights: Numbers in its weights.
        zeros: Those that are exactly zero.
    """
    return dict(
        model=model,
        format='PyTorch',
        precision=form,
        scores=dict(scores),
        errors={},
        changed=None,
        bytes=size,
        weights=weights,
        zeros=zeros,
    )


def exported_row(model: str, report: ExportReport, scores: Mapping[str, float]) -> Row:
    """What it says of an exported file.

    Args:
        model: Name of the model.
        report: Of the export.
        scores: In per cent.
    """
    found = report.verification
    return dict(
        model=model,
        format=report.format,
        precision=report.metadata.precision,
        scores=dict(scores),
        errors={
            name: dict(largest=float(error.largest), share=float(error.share))
            for name, error in found.errors.items()
        },
        changed=float(found.results.share),
        bytes=report.contents.bytes,
        weights=report.contents.weights,
        zeros=report.contents.zeros,
    )


def add_times(rows: Sequence[Row], samples: Sequence[Sequence[float]], threads: int) -> None:
    """Add what a call for one image takes, and what it takes beside PyTorch, folded.

    Args:
        rows: Of one model; that of PyTorch, folded, is among them.
        samples: Of each row, in seconds.
        threads: That computed.
    """
    for row, times in zip(rows, samples, strict=True):
        row |= dict(threads=threads, **timing_of(times))
    folded = next(row for row in rows if row['precision'] == FOLDED)
    for row in rows:
        row['over_folded'] = row['median_ms'] / folded['median_ms']
