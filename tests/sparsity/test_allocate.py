"""How much is kept where: exact counts, exact sums, and at least one unit per layer."""

from __future__ import annotations

import pytest
import torch

from mmsw.sparsity import erk_counts, keep_best, uniform_counts


@pytest.mark.parametrize(
    ('sizes', 'sparsity', 'counts'),
    [
        ([10, 20, 30], 0.5, [5, 10, 15]),
        ([10, 20, 30], 0.0, [10, 20, 30]),
        ([3, 3, 3], 0.5, [2, 2, 1]),  # 4.5 rounds to even: 5 kept; the remainder goes in order
        ([7, 11], 0.3, [5, 8]),
        ([4, 400], 0.99, [1, 3]),  # 4 kept; the small layer keeps one, not 0.04
        ([5, 5, 5], 0.999, [1, 1, 1]),  # fewer than one each is not possible
    ],
)
def test_uniform_counts_are_exact(sizes, sparsity, counts) -> None:
    named = {f'layer{i}': size for i, size in enumerate(sizes)}
    assert list(uniform_counts(named, sparsity).values()) == counts


@pytest.mark.parametrize('sparsity', [0.0, 0.1, 1 / 3, 0.5, 0.77, 0.9, 0.99])
def test_the_sum_is_exact_and_each_layer_near_its_share(sparsity) -> None:
    sizes = {str(i): size for i, size in enumerate([13, 408, 612, 97, 1536, 300])}
    counts = uniform_counts(sizes, sparsity)
    total = sum(sizes.values())
    assert sum(counts.values()) == total - round(sparsity * total)
    for name, size in sizes.items():
        assert abs(counts[name] - (1 - sparsity) * size) <= 1 + 1e-9 or counts[name] == 1


def test_erk_follows_sum_over_product_of_the_shape() -> None:
    shapes = {'wide': (64, 32, 3, 3), 'narrow': (16, 8, 3, 3)}
    sizes = {'wide': 64 * 32 * 9, 'narrow': 16 * 8 * 9}
    counts = erk_counts(shapes, sizes, 0.9)
    density = {name: counts[name] / sizes[name] for name in sizes}
    expected = {'wide': 102 / (64 * 32 * 9), 'narrow': 30 / (16 * 8 * 9)}
    ratio = density['narrow'] / density['wide']
    assert ratio == pytest.approx(expected['narrow'] / expected['wide'], rel=0.01)
    total = sum(sizes.values())
    assert sum(counts.values()) == total - round(0.9 * total)


def test_erk_keeps_layers_whole_that_would_exceed_density_one() -> None:
    shapes = {'wide': (64, 32, 3, 3), 'tiny': (2, 2, 3, 3)}
    sizes = {'wide': 64 * 32 * 9, 'tiny': 36}
    counts = erk_counts(shapes, sizes, 0.5)
    assert counts['tiny'] == 36
    assert sum(counts.values()) == sum(sizes.values()) // 2


def test_erk_of_small_kernels_is_nearly_uniform() -> None:
    shapes = {'first': (408, 1, 3, 3), 'last': (1536, 1, 3, 3)}
    sizes = {name: shape[0] for name, shape in shapes.items()}
    counts = erk_counts(shapes, sizes, 0.3)
    raw = {name: (shape[0] + 7) / (shape[0] * 9) for name, shape in shapes.items()}
    ratio = (counts['first'] / 408) / (counts['last'] / 1536)
    assert ratio == pytest.approx(raw['first'] / raw['last'], abs=0.003)


@pytest.mark.parametrize('sparsity', [-0.1, 1.0, 1.5, float('nan')])
def test_a_sparsity_out_of_range_is_named(sparsity) -> None:
    message = rf'sparsity must be in \[0, 1\), got {sparsity}'
    with pytest.raises(ValueError, match=message):
        uniform_counts({'a': 4}, sparsity)
    with pytest.raises(ValueError, match=message):
        erk_counts({'a': (4, 1, 3, 3)}, {'a': 4}, sparsity)
    with pytest.raises(ValueError, match=message):
        keep_best({'a': torch.ones(4)}, sparsity)


def test_the_best_of_all_layers_stay() -> None:
    scores = {'a': torch.tensor([5.0, 1.0, 4.0]), 'b': torch.tensor([3.0, 6.0, 2.0])}
    kept, saved = keep_best(scores, 0.5)
    assert kept['a'].tolist() == [True, False, True]
    assert kept['b'].tolist() == [False, True, False]
    assert saved == []


def test_ties_go_to_the_earlier_layer_and_the_lower_index() -> None:
    kept, _ = keep_best({'a': torch.ones(3), 'b': torch.ones(3)}, 0.34)
    assert kept['a'].tolist() == [True, True, True]
    assert kept['b'].tolist() == [True, False, False]


def test_a_layer_that_would_lose_everything_keeps_its_best_and_is_named() -> None:
    scores = {
        'strong': torch.tensor([9.0, 8.0, 7.0, 6.0]),
        'weak': torch.tensor([0.1, 0.3, 0.2]),
        'dead': torch.zeros(1),
    }
    kept, saved = keep_best(scores, 0.5)
    assert saved == ['weak', 'dead']
    assert kept['weak'].tolist() == [False, True, False]
    assert kept['dead'].tolist() == [True]
    assert kept['strong'].tolist() == [True, True, False, False]  # the total stays exact


def test_as_few_as_there_are_layers() -> None:
    kept, saved = keep_best({'a': torch.tensor([1.0, 2.0]), 'b': torch.tensor([3.0, 4.0])}, 0.999)
    assert [k.tolist() for k in kept.values()] == [[False, True], [False, True]]
    assert saved == ['a']


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r'finite; those of b are not'):
        keep_best({'a': torch.ones(2), 'b': torch.tensor([1.0, float('nan')])}, 0.5)
