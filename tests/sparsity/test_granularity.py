"""Granularities and units against their definition in loops."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from literal_units import GRANULARITIES, literal_units

from mmsw.sparsity.granularity import check_possible, granularity_of
from mmsw.sparsity.units import (
    kept_units,
    mask_of_units,
    number_of_units,
    unit_norms,
    unit_sums,
)

SHAPES = [
    (6, 4, 3, 3),
    (5, 7),
    (8, 1, 3, 3),
    (2, 3, 1, 5),
    (1, 12),
    (12, 4, 1, 1),
    (3, 2, 5),
    (4, 6),
]


@pytest.mark.parametrize('granularity', GRANULARITIES)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_units_are_as_defined(shape, granularity) -> None:
    units = literal_units(shape, granularity)
    assert (granularity_of(granularity).misfit(shape) is None) == (units is not None)
    if units is None:
        return
    generator = torch.Generator().manual_seed(len(units))
    values = torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.4
    assert number_of_units(shape, granularity) == len(units)
    array, held = values.double().numpy(), mask.numpy()
    norms = [np.sqrt(sum(array[p] ** 2 for p in unit)) for unit in units]
    np.testing.assert_allclose(unit_norms(values, granularity), norms, rtol=1e-12)
    sums = [sum(array[p] for p in unit) for unit in units]
    np.testing.assert_allclose(unit_sums(values, granularity), sums, rtol=1e-12, atol=1e-14)
    some = [any(held[p] for p in unit) for unit in units]
    assert kept_units(mask, granularity).tolist() == some
    keep = torch.rand(len(units), generator=generator) < 0.5
    expected = np.zeros(shape, bool)
    for unit, stays, was in zip(units, keep.tolist(), some, strict=True):
        for place in unit:  # one that is grown comes whole, one that stays is as it was
            expected[place] = stays and (held[place] or not was)
    np.testing.assert_array_equal(mask_of_units(keep, mask, granularity), expected)


@pytest.mark.parametrize(
    ('text', 'unit', 'sparsity'),
    [('filter', 'filter', None), ('block 4 x 1', 'block', None), ('2:4', 'weight', 0.5),
     ('1:4', 'weight', 0.75), ('weight', 'weight', None)],
)  # fmt: skip
def test_what_a_text_means(text, unit, sparsity) -> None:
    found = granularity_of(text)
    assert found.unit == unit
    assert found.most_sparsity == sparsity
    assert granularity_of(str(found)) == found


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('filters', "granularity must be one of .*, got 'filters'"),
        ('block', "granularity must be one of .*'block RxC'.*, got 'block'"),
        ('block 0x4', "got 'block 0x4'"),
        ('4:2', "needs 1 <= N < M, got '4:2'"),
        ('0:4', "needs 1 <= N < M, got '0:4'"),
        ('4:4', "needs 1 <= N < M, got '4:4'"),
        (None, 'granularity must be one of .*, got None'),
    ],
)
def test_texts_without_a_meaning_are_refused(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        granularity_of(text)


def test_n_of_m_has_one_sparsity() -> None:
    check_possible(granularity_of('2:4'), 0.5)
    check_possible(granularity_of('1:3'), 2 / 3)
    check_possible(granularity_of('weight'), 0.123)
    with pytest.raises(ValueError, match=r"'2:4' has a sparsity of 0\.5 by itself.*got 0\.6"):
        check_possible(granularity_of('2:4'), 0.6)


@pytest.mark.parametrize(
    ('granularity', 'shape', 'reason'),
    [
        ('channel', (8, 1, 3, 3), 'single input channel \\(depthwise\\)'),
        ('block 4x1', (6, 8), '6 filters do not divide into blocks of 4'),
        ('block 1x4', (6, 3, 3, 3), '27 weights per filter do not divide into 4s'),
        ('2:4', (64, 3, 7, 7), '147 weights per filter do not divide into 4s'),
    ],
)
def test_why_a_weight_does_not_fit(granularity, shape, reason) -> None:
    assert re.search(reason, granularity_of(granularity).misfit(shape))
