"""Sentences that quote a figure quote the one that stands in a table now."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from run_tool import ROOT

from mmsw.benchmarks.page import text_in

CPP, CUDA, SLICES = r'`?(mmsw )?cpp`?', r'`?(mmsw )?cuda`?', r'small conv.* slices'


def cell(page: str, block: str, row: str, column: str) -> str:
    """A cell of the tables of a block: the first one that has this row and this column.

    Args:
        page: In ``docs``.
        block: Its name.
        row: Pattern for the first cells of a row, with ``' | '`` between two of them.
        column: Pattern for the head of a column.
    """
    for table in re.findall(r'(?:^\|.*\n)+', text_in(ROOT / 'docs' / page, block), re.MULTILINE):
        head, _, *rows = [[c.strip() for c in line[1:-2].split('|')] for line in table.splitlines()]
        places = [place for place, name in enumerate(head) if re.fullmatch(column, name)]
        for cells in rows:
            starts = [' | '.join(cells[:number]) for number in range(1, len(cells))]
            if places and any(re.fullmatch(row, start) for start in starts):
                return cells[places[0]]
    raise AssertionError(f'{page}, block {block}: no cell of {row!r} under {column!r}')


def number(text: str) -> float:
    return float(re.match(r'[-+]?[\d.,]+', text)[0].replace(',', ''))


@dataclass(frozen=True)
class Quote:
    """A sentence with places for figures.

    Attributes:
        page: Where it stands.
        text: The sentence, with ``{}`` for figures.
        figures: Give what belongs there, in words of the sentence.
    """

    page: str
    text: str
    figures: Sequence[Callable[[], str]]

    def __str__(self) -> str:
        return f'{self.page}: {self.text[:40]}'


def of(page: str, block: str, row: str, column: str, pattern: str = '.*') -> Callable[[], str]:
    """A cell, or the part of it that is quoted."""
    return lambda: re.search(pattern, cell(page, block, row, column))[0]


def ratio(
    page: str, block: str, above: tuple[str, str], below: tuple[str, str], digits: int
) -> Callable[[], str]:
    """One cell over another one."""
    return lambda: (
        f'{number(cell(page, block, *above)) / number(cell(page, block, *below)):.{digits}f}'
    )


def loss(page: str, block: str, row: str, column: str) -> Callable[[], str]:
    """A difference below zero, with one digit and without its sign."""
    return lambda: f'{-number(cell(page, block, row, column)):.1f}'


def difference(
    page: str, block: str, above: tuple[str, str], below: tuple[str, str], digits: int
) -> Callable[[], str]:
    """One cell less another one."""
    return lambda: (
        f'{number(cell(page, block, *above)) - number(cell(page, block, *below)):.{digits}f}'
    )


FORWARD, BACKWARD = r'forward, batch {}', r'forward ?\+ ?backward, batch {}'
SPARSE = ('sparse_training.md', 'sparse-training')
OPERATORS, SEVEN, TORCH = ('backends.md', 'operators'), 'depthwise 7x7', 'mmsw torch'
FOLDED = 'mmsw cpp folded'
WHOLE = ('real_images.md', 'full-size-gpu')
PRUNED, NARROW, END = r'shift-wise, 40% pruned, dynamic', 'ResNet-18, narrow', r'mIoU \[%\], 2500'
SMALL = ('bicyclist', 'sign', 'pedestrian', 'pole')
GAIN = r'accuracy − dense .*'
SEG = ('transfer.md', 'segmentation')
QUOTES = [
    Quote(
        'README.md',
        'takes {} ms forward, {} times faster than small convolutions shifted by slices',
        [
            of('backends.md', 'operators', CPP, FORWARD.format(1), r'^[\d.]+'),
            ratio(
                *('backends.md', 'operators'),
                (SLICES, FORWARD.format(1)),
                (CPP, FORWARD.format(1)),
                0,
            ),
        ],
    ),
    Quote(
        'README.md',
        "{} times faster than SLaK's pair",
        [
            ratio(
                *('backends.md', 'operators-gpu'),
                (r'SLaK pair.*', FORWARD.format(16)),
                (CUDA, FORWARD.format(16)),
                1,
            )
        ],
    ),
    Quote(
        'README.md',
        "With 30% pruned, as published, {} of the operator's work remains",
        [of('complexity.md', 'work-left', '30%', 'R = 4, two paths')],
    ),
    Quote(
        'README.md',
        'by {} points with half of the filters gone, and by {} with 90% gone',
        [of(*SPARSE, rf'filter \| {share}', GAIN) for share in ('50%', '90%')],
    ),
    Quote(
        'README.md',
        'reaches {}% mIoU on 60 held-out scenes, and keeps {} of {} filters',
        [
            of('quick_start.md', 'demo', 'mIoU', 'after'),
            of('quick_start.md', 'demo', 'filters kept', 'after', r'^\d+'),
            of('quick_start.md', 'demo', 'filters kept', 'after', r'\d+$'),
        ],
    ),
    Quote(
        'README.md',
        '{}% box AP and {}% mask AP',
        [of('quick_start.md', 'demo-detection', score, 'after') for score in ('box AP', 'mask AP')],
    ),
    Quote(
        'README.md',
        '{} times ConvNeXt-T',
        [of('speed.md', 'networks', r'SW-T v2, folded', r'/ ConvNeXt-T')],
    ),
    Quote(
        'docs/transfer.md',
        '`scratch-long` is {} percentage points below dense',
        [
            loss(*SEG, r'\S+ \| scratch-long', r'mIoU − dense .*'),
        ],
    ),
    Quote(
        'docs/transfer.md',
        'Sparse pretraining is {} points below dense',
        [loss(*SEG, r'\S+ \| sparse', r'mIoU − dense .*')],
    ),
    Quote(
        'docs/distillation.md',
        'the sparse network lost {} points of mIoU against the dense one, and the teacher won back '
        '{} of them',
        [
            of('distillation.md', '', r'\S+ \| sparse', 'mIoU − dense .*', r'[\d.]+'),
            of('distillation.md', '', r'\S+ \| sparse-distilled', 'mIoU − sparse .*', r'[\d.]+'),
        ],
    ),
    Quote(
        'README.md',
        'A 7 x 7 depthwise convolution is {} times faster forward, and takes {} times as long with '
        'the backward pass',
        [
            ratio(*OPERATORS, (CPP, FORWARD.format(1)), (SEVEN, FORWARD.format(1)), 1),
            ratio(*OPERATORS, (SEVEN, BACKWARD.format(1)), (CPP, BACKWARD.format(1)), 1),
        ],
    ),
    Quote(
        'docs/backends.md',
        '`cpp` is {} and {} times faster at batch 1, and {} and {} times faster at batch 8',
        [
            ratio(*OPERATORS, (runtime, FORWARD.format(batch)), (CPP, FORWARD.format(batch)), 1)
            for batch in (1, 8)
            for runtime in ('OpenVINO', 'onnxruntime')
        ],
    ),
    Quote(
        'docs/backends.md',
        '`cpp` is {} times faster than `torch` forward, and {} times faster with the backward pass',
        [
            ratio(*OPERATORS, (TORCH, mode.format(1)), (CPP, mode.format(1)), 1)
            for mode in (FORWARD, BACKWARD)
        ],
    ),
    Quote(
        'docs/backends.md',
        "SLaK's pair of M x 5 and 5 x M convolutions takes {} times as long forward, and {} times "
        'as long with the backward pass (batch 1). With its wide side transposed by hand, it takes '
        '{} and {} times as long.',
        [
            ratio(*OPERATORS, (row, mode.format(1)), (CPP, mode.format(1)), digits)
            for row, digits in ((r'SLaK pair', (0, 0)), (r'SLaK pair, wide .*', (1, 0)))
            for mode, digits in zip((FORWARD, BACKWARD), digits, strict=True)
        ],
    ),
    Quote(
        'docs/backends.md',
        '`cpp` takes {} of the time that one large matrix product takes',
        [of('backend_internals.md', 'operator-layers', r'together \| 1', CPP, r'(?<=\()[\d.]+')],
    ),
    Quote(
        'docs/export.md',
        'folded `cpp` was {} times faster than onnxruntime and {} times faster than OpenVINO',
        [
            ratio(*OPERATORS, (f'{name} folded', FORWARD.format(1)), (FOLDED, FORWARD.format(1)), 1)
            for name in ('onnxruntime', 'OpenVINO')
        ],
    ),
    Quote(
        'docs/backends.md',
        '`cuda` is {} times faster than the SLaK pair forward, and {} times faster with the',
        [
            ratio(
                *('backends.md', 'operators-gpu'),
                (r'SLaK pair.*', mode.format(16)),
                (CUDA, mode.format(16)),
                1,
            )
            for mode in (FORWARD, BACKWARD)
        ],
    ),
    Quote(
        'README.md',
        'At full size the network with 40% pruned is {} points above the ResNet-18',
        [difference(*WHOLE, (PRUNED, END), (NARROW, END), 1)],
    ),
    Quote(
        'docs/real_images.md',
        '40% pruned reaches {}%, dense {}% and 90% pruned {}%. ResNet-18 has {}%, ConvNeXt {}% and '
        'MiT {}%',
        [
            of(*WHOLE, row, END)
            for row in (
                *(PRUNED, 'shift-wise, dense', 'shift-wise, 90% pruned, dynamic', NARROW),
                *('ConvNeXt, small', 'MiT, narrow'),
            )
        ],
    ),
    Quote(
        'docs/real_images.md',
        'The score of that run rose by {} points in the last quarter',
        [difference(*WHOLE, (PRUNED, END), (PRUNED, r'mIoU \[%\], 1875'), 2)],
    ),
    Quote(
        'docs/real_images.md',
        'pedestrians and poles have an IoU of {}%, {}%, {}% and {}% with 40% pruned, and of {}%, '
        '{}%, {}% and {}% in the ResNet-18',
        [of(*WHOLE, row, name) for row in (PRUNED, NARROW) for name in SMALL],
    ),
    Quote(
        'docs/index.md',
        'SW-T v2 takes {} times the time of ConvNeXt-T, folded',
        [of('speed.md', 'networks', r'SW-T v2, folded', r'/ ConvNeXt-T')],
    ),
    Quote(
        'docs/speed.md',
        'equ-SLaK-T takes {} of the time of SLaK-T',
        [ratio('speed.md', 'networks', ('equ-SLaK-T', 'ms'), ('SLaK-T', 'ms'), 2)],
    ),
    Quote(
        'docs/speed.md',
        'Folded, SW-T v2 takes {} times the time of ConvNeXt-T',
        [of('speed.md', 'networks', r'SW-T v2, folded', r'/ ConvNeXt-T')],
    ),
]


@pytest.mark.parametrize('quote', QUOTES, ids=str)
def test_a_sentence_quotes_the_table(quote: Quote) -> None:
    said = quote.text.format(*(figure() for figure in quote.figures))
    page = ' '.join((ROOT / quote.page).read_text(encoding='utf-8').split())
    assert said in page, f'{quote.page} does not say: {said}'


def test_a_cell_is_found_by_row_and_column(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / 'docs').mkdir()
    text = (
        '<!-- tables a: begin -->\n\n| x | y | z |\n| --- | --- | --- |\n| a | b | 1 |\n'
        '| a | c | 2.5 (1) |\n\n<!-- tables a: end -->\n'
    )
    (tmp_path / 'docs/page.md').write_text(text, encoding='utf-8')
    monkeypatch.setattr('test_quotes.ROOT', tmp_path)
    assert cell('page.md', 'a', r'a \| c', 'z') == '2.5 (1)'
    assert number(cell('page.md', 'a', 'a', 'z')) == 1
    assert number('-1,234.5 [1, 2]') == -1234.5
    with pytest.raises(AssertionError, match=r"page\.md, block a: no cell of 'd' under 'z'"):
        cell('page.md', 'a', 'd', 'z')
