"""Products of a constant weight with a map are convolutions of one tap, with the same results."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('onnxruntime', reason='onnx: absent; onnxruntime runs the models')
pytest.importorskip('onnx', reason='onnx: absent; it writes the models')

from onnx import helper
from small_onnx import kinds, model_of, run, small_network

from mmsw.deploy.export.products import products_as_convolutions


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize('batch', [1, 3])
def test_a_network(batch: int) -> None:
    model = small_network(np.random.default_rng(1))
    image = numbers(batch, 3, 7, 9)
    (expected,) = run(model, image=image)
    assert products_as_convolutions(model) == 2
    assert kinds(model).count('MatMul') == 0
    assert kinds(model).count('Conv') == 6
    (found,) = run(model, image=image)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * abs(expected).max())


def test_against_the_formula() -> None:
    """``(weight * factor) @ map``, for each sample, in float64."""
    weight, factor, x = numbers(4, 5), numbers(2, 1, 5, seed=1), numbers(2, 5, 11, seed=2)
    nodes = [
        helper.make_node('Mul', ['factor', 'weight'], ['scaled']),
        helper.make_node('MatMul', ['scaled', 'x'], ['y']),
    ]
    inputs = {'factor': ['B', 1, 5], 'x': ['B', 5, 'P']}
    model = model_of(nodes, {'weight': weight}, inputs, {'y': ['B', 4, 'P']})
    assert products_as_convolutions(model) == 1
    assert kinds(model) == ['Transpose', 'Mul', 'Conv']
    assert [tensor.name for tensor in model.graph.initializer] == ['weight_taps']
    (found,) = run(model, factor=factor, x=x)
    expected = np.matmul(weight.astype(float) * factor, x.astype(float))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * abs(expected).max())


def test_a_weight_of_two_products_is_stored_once() -> None:
    nodes = [
        helper.make_node('MatMul', ['weight', 'x'], ['y']),
        helper.make_node('MatMul', ['weight', 'y'], ['z']),
    ]
    weight, x = numbers(5, 5), numbers(1, 5, 3)
    model = model_of(nodes, {'weight': weight}, {'x': [1, 5, 3]}, {'z': [1, 5, 3]})
    assert products_as_convolutions(model) == 2
    assert len(model.graph.initializer) == 1
    np.testing.assert_allclose(run(model, x=x)[0], weight @ (weight @ x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('left', 'right', 'out'),
    [
        ('x', 'weight', [2, 7, 5]),  # the constant comes second: a product in int8 as it is
        ('x', 'x', None),  # of two maps
    ],
)
def test_other_products_stay(left: str, right: str, out: list[int] | None) -> None:
    size = 7 if out is None else 5
    x, weight = numbers(2, 7, size), numbers(size, 5)
    nodes = [helper.make_node('MatMul', [left, right], ['y'])]
    model = model_of(nodes, {'weight': weight}, {'x': list(x.shape)}, {'y': out or [2, 7, 7]})
    before = model.SerializeToString()
    assert products_as_convolutions(model) == 0
    assert model.SerializeToString() == before
