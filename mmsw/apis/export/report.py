"""What an export made and how it compares with PyTorch, for a terminal."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsw.deploy.export.contents import FileContents
from mmsw.deploy.export.formats import FORMATS
from mmsw.deploy.export.metadata import ExportMetadata
from mmsw.wording import listed

from .compare import Changes
from .timing import Timing
from .verify import Verification

_COLUMN, _WIDTH = 21, 96  # of the text, in characters
_KINDS = 20  # of operators that are named
_UNITS = {'boxes': ' pixels', 'scores': '', 'masks': ''}


@dataclass(frozen=True)
class Weights:
    """Numbers in weights, those of two or more dimensions, and the zeros among them."""

    total: int
    zeros: int

    def __str__(self) -> str:
        share = self.zeros / self.total if self.total else 0.0
        return f'{self.total:,} with {self.zeros:,} zeros ({share:.1%})'


@dataclass(frozen=True)
class ExportReport:
    """What an export made.

    Attributes:
        path: The file.
        format: ``'onnx'``, ``'openvino'`` or ``'torch'``.
        metadata: What the file tells of itself.
        contents: What it holds; of machine code, what it was made of.
        parameters: Of the folded model.
        checkpoint_weights: Of the model as it was trained.
        folded_weights: Of the folded model.
        verification: How its results compare with those of the model; ``None`` if not asked for.
        timing: Time per image; ``None`` where it was not taken.
        compiled: Whether it is machine code.
    """

    path: Path
    format: str
    metadata: ExportMetadata
    contents: FileContents
    parameters: int
    checkpoint_weights: Weights
    folded_weights: Weights
    verification: Verification | None = None
    timing: Timing | None = None
    compiled: bool = False

    @property
    def passed(self) -> bool:
        """Whether the file is there: it was not compared, or it gave what the model gives."""
        return self.verification is None or self.verification.passed

    def __str__(self) -> str:
        meta, contents = self.metadata, self.contents
        size = 'any height and width' if meta.size is None else f'{meta.size[0]} x {meta.size[1]}'
        operators = _operators(contents.operators)
        rows = [
            ('model', f'{meta.model}, {meta.task}, {len(meta.classes)} classes'),
            ('format', self._format()),
            ('images', f'{size}, {"any number" if meta.batched else "one"} at once'),
            ('file', f'{contents.bytes / 2**20:.2f} MiB'),
            ('parameters', f'{self.parameters:,} of the folded model'),
            ('density', _density(meta.density)),
            ('weights, checkpoint', str(self.checkpoint_weights)),
            ('weights, folded', str(self.folded_weights)),
            ('weights, file', str(Weights(contents.weights, contents.zeros))),
            ('operators', f'{sum(contents.operators.values())}: {operators}'),
            *self._verified(),
            *self._timed(),
        ]
        return '\n'.join([*(_row(name, text) for name, text in rows), self._outcome()])

    def _format(self) -> str:
        text = f'{self.format} in {self.metadata.precision}, for {FORMATS[self.format].runtime}'
        return f'{text}, compiled for processors like this one' if self.compiled else text

    def _verified(self) -> Iterator[tuple[str, str]]:
        found = self.verification
        if found is None:
            yield 'compared', 'no'
            return
        yield 'compared on', found.images
        sizes = ', '.join(' x '.join(map(str, size)) for size in found.sizes)
        yield 'outputs at', f'{sizes} (images x height x width)'
        for name, error in found.errors.items():
            unit = _UNITS.get(name)
            text = f'{error.largest:.1e}{unit or ""}'
            if unit is None:
                text += f', {error.share:.1e} of the largest'
            yield f'error of {name}', text
        things = 'pixels' if self.metadata.task == 'segmentation' else 'objects'
        if things == 'objects':
            yield 'outputs', _changes(found.outputs, things)
        yield 'results', _changes(found.results, things)
        for name, error in found.result_errors.items():
            yield f'error of {name}', f'{error.largest:.1e}{_UNITS[name]} in results'
        if found.mask_pixels.total:
            pixels = found.mask_pixels
            text = f'{pixels.changed:,} of {pixels.total:,} pixels of masks are on one side alone'
            yield 'masks', text
        for problem in found.problems:
            yield 'FAILED', problem

    def _timed(self) -> Iterator[tuple[str, str]]:
        time = self.timing
        if time is not None:
            here, there = (' x '.join(map(str, size)) for size in (time.size, time.torch_size))
            yield (
                'time per image',
                f'{1e3 * time.seconds:.1f} ms at {here}, PyTorch folded '
                f'{1e3 * time.torch_seconds:.1f} ms at {there}: {time.ratio:.2f} times as long '
                f'({time.threads} thread{"s" * (time.threads > 1)}, medians of {time.rounds} runs '
                'in turns)',
            )

    def _outcome(self) -> str:
        if self.passed:
            return f'wrote {os.fspath(self.path)}'
        return f'{os.fspath(self.path)} was not written: its results are not those of the model'


def _operators(counts: dict[str, int]) -> str:
    kinds = ' kinds' if len(counts) > _KINDS else ''
    return listed([f'{number} {name}' for name, number in counts.items()], _KINDS) + kinds


def _density(share: float | None) -> str:
    return 'no layer has masks' if share is None else f'{share:.2%} of the weights that have masks'


def _changes(changes: Changes, things: str) -> str:
    if things == 'pixels':
        return f'{changes.changed:,} of {changes.total:,} pixels have another class'
    return f'{changes.changed} objects on one side alone, {changes.total} in PyTorch'


def _row(name: str, text: str) -> str:
    """A name and its text, in as many lines as it needs."""
    lines = textwrap.wrap(text, _WIDTH - _COLUMN, break_on_hyphens=False)
    return f'{name:<{_COLUMN}}' + f'\n{"":{_COLUMN}}'.join(lines)
