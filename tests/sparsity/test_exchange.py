"""Drop and grow on hand-made tensors: who goes, who comes, who is left alone."""

from __future__ import annotations

import math

import pytest
import torch

from mmsw.sparsity import drop_and_grow, exchange_rate, num_exchanged, shared_units

KEPT = torch.tensor([True, True, True, True, False, False, False])


def test_the_smallest_go_and_the_best_of_the_others_come() -> None:
    importance = torch.tensor([4.0, 1.0, 3.0, 2.0, 99.0, 99.0, 99.0])  # of pruned ones: ignored
    growth = torch.tensor([99.0, 99.0, 99.0, 99.0, 0.1, 0.3, 0.2])  # of kept ones: ignored
    new = drop_and_grow(KEPT, importance, growth, 2)
    assert new.tolist() == [True, False, True, False, False, True, True]
    assert KEPT.tolist() == [True] * 4 + [False] * 3, 'the argument is left alone'


def test_what_is_dropped_does_not_come_back_at_once() -> None:
    growth = torch.tensor([9.0, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0])
    new = drop_and_grow(KEPT, torch.arange(7.0), growth, 3)
    assert new.tolist() == [False, False, False, True, True, True, True]


def test_ties_keep_and_grow_the_lower_index() -> None:
    new = drop_and_grow(KEPT, torch.ones(7), torch.ones(7), 2)
    assert new.tolist() == [True, True, False, False, True, True, False]


def test_nothing_to_exchange() -> None:
    new = drop_and_grow(KEPT, torch.full((7,), float('nan')), torch.ones(7), 0)
    assert torch.equal(new, KEPT)
    assert new is not KEPT


@pytest.mark.parametrize('number', [4, 5, -1])
def test_more_than_there_is_to_grow_is_refused(number) -> None:
    with pytest.raises(ValueError, match=rf'cannot exchange {number} units: 4 of 7 are kept'):
        drop_and_grow(KEPT, torch.ones(7), torch.ones(7), number)


@pytest.mark.parametrize(('dropped', 'grown'), [(0, 3), (4, 0), (1, 2), (3, 1)])
def test_other_numbers_may_grow_than_go(dropped, grown) -> None:
    new = drop_and_grow(KEPT, torch.arange(7.0), torch.arange(7.0), dropped, grown)
    assert new.tolist() == [unit >= dropped if unit < 4 else unit >= 7 - grown for unit in range(7)]


def test_more_than_there_is_to_grow_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match=r'cannot drop 1 units and grow 4: 4 of 7 .* and 3 grown'):
        drop_and_grow(KEPT, torch.ones(7), torch.ones(7), 1, 4)


@pytest.mark.parametrize('which', ['importance', 'growth'])
def test_scores_that_matter_must_be_finite(which) -> None:
    scores = {'importance': torch.ones(7), 'growth': torch.ones(7)}
    scores[which][0 if which == 'importance' else 6] = float('inf')
    with pytest.raises(ValueError, match='finite'):
        drop_and_grow(KEPT, **scores, number=1)


@pytest.mark.parametrize(
    ('kept', 'total', 'rate', 'number'),
    [
        (700, 1000, 0.3, 210),
        (900, 1000, 0.3, 100),  # no more than there are to grow
        (1000, 1000, 0.3, 0),  # dense: nothing to grow
        (10, 1000, 0.3, 3),
        (1, 1000, 1.0, 0),  # the last one stays
        (5, 1000, 1.0, 4),
        (100, 1000, 0.005, 0),  # less than half a unit
        (0, 10, 0.5, 0),
    ],
)
def test_number_exchanged(kept, total, rate, number) -> None:
    assert num_exchanged(kept, total, rate) == number


def test_the_rate_falls_along_a_half_cosine() -> None:
    rates = [exchange_rate(step, 100, 0.3, 0.005) for step in range(0, 101, 25)]
    middle = (0.3 + 0.005) / 2
    quarter = 0.005 + 0.295 * (1 + math.cos(math.pi / 4)) / 2
    assert rates == pytest.approx([0.3, quarter, middle, 0.305 - quarter, 0.005])
    assert exchange_rate(1000, 100, 0.3, 0.005) == pytest.approx(0.005)
    assert exchange_rate(0, 0, 0.3, 0.005) == pytest.approx(0.005)


def test_paths_come_to_share_the_units_of_largest_common_importance() -> None:
    kept = [
        torch.tensor([True, True, False, False, False]),
        torch.tensor([False, True, True, False, False]),
    ]
    importance = [
        torch.tensor([3.0, 1.0, 50.0, 50.0, 50.0]),  # where not kept: ignored
        torch.tensor([50.0, 1.0, 2.5, 50.0, 50.0]),
    ]
    first, second = shared_units(kept, importance)
    assert first.tolist() == second.tolist() == [True, False, True, False, False]


def test_an_odd_sum_leaves_one_more_to_the_first_path() -> None:
    kept = [torch.tensor([True, True, False, False]), torch.tensor([False, False, True, False])]
    importance = [torch.tensor([3.0, 2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0])]
    first, second = shared_units(kept, importance)
    assert first.tolist() == [True, True, False, False]
    assert second.tolist() == [True, False, False, False]


def test_kept_units_of_no_importance_go_before_units_that_nobody_keeps() -> None:
    kept = [torch.tensor([False, False, True]), torch.tensor([False, False, True])]
    shared = shared_units(kept, [torch.zeros(3), torch.zeros(3)])
    assert [units.tolist() for units in shared] == [[False, False, True]] * 2
