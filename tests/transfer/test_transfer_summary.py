"""Statistics of a transfer benchmark, and the words that follow from them."""

from __future__ import annotations

import pytest

from mmsw.apis.benchmarks.comparison import Row, Spread, conclude, paired_difference


def row(start: str, scores: dict[int, float], name: str = 'mIoU') -> Row:
    results = {seed: {'scores': {name: score}} for seed, score in scores.items()}
    return Row('net', 'seg', start, results, len(scores))


def test_mean_and_sample_deviation():
    spread = Spread.of([1.0, 2.0, 6.0])
    assert spread.mean == 3.0
    assert spread.deviation == pytest.approx(7.0**0.5)
    assert spread.text() == '3.00 ± 2.65'
    assert Spread.of([4.0]).text(1) == '4.0'
    assert Spread.of([]).text() == 'missing'


def test_differences_are_paired_by_seed():
    dense, sparse = row('dense', {0: 10.0, 1: 20.0, 2: 30.0}), row('sparse', {0: 9.0, 2: 27.0})
    difference = paired_difference(sparse, dense, 'mIoU')
    assert (difference.mean, difference.n) == (-2.0, 2)
    assert difference.deviation == pytest.approx(2.0**0.5)


def test_conclusion_follows_from_the_figures():
    scratch, dense = row('scratch', {0: 10.0, 1: 11.0}), row('dense', {0: 40.0, 1: 42.0})
    sparse = row('sparse', {0: 40.5, 1: 42.5})
    text = conclude([scratch, dense, sparse], 'mIoU')
    assert 'best mean mIoU is that of sparse, 41.50 ± 1.41' in text
    assert (
        'sparse is 0.50 above the next best, dense (2 of 2 seeds agree in sign): within the '
        'seed-to-seed spread of 1.41, so these runs do not tell them apart.'
    ) in text
    assert 'scratch is 30.50 below dense (2 of 2 seeds agree in sign): more than' in text
    assert text.count('dense') == 2
    alone = conclude([row('scratch', {0: 1.0}), row('dense', {0: 2.0})], 'mIoU')
    assert 'in the only seed: the spread is not known' in alone
