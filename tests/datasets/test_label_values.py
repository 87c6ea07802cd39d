"""Values of label maps that get another meaning while they are loaded."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmsw.datasets import MapLabelValues
from mmsw.errors import UsageError

VALUES = np.arange(256, dtype=np.uint8).reshape(16, 16)


def mapped(values: np.ndarray, **settings) -> np.ndarray:
    return MapLabelValues(**settings)(dict(gt_seg_map=values))['gt_seg_map']


def test_values_are_replaced_at_once() -> None:
    found = mapped(VALUES, mapping={255: 1, 1: 0, 0: 2}, ignore=(11, 2))
    expected = VALUES.copy()
    expected.flat[[255, 1, 0, 11, 2]] = 1, 0, 2, 255, 255
    np.testing.assert_array_equal(found, expected, strict=True)
    assert VALUES.flat[255] == 255  # the loader may keep its array


@pytest.mark.parametrize('shape', [(1, 5), (5, 1), (1, 1)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    found = mapped(np.full(shape, 255, np.uint8), mapping={255: 1})
    np.testing.assert_array_equal(found, np.ones(shape, np.uint8), strict=True)


@pytest.mark.parametrize('dtype', [np.int64, np.int32, np.uint16, np.float32])
def test_other_types_keep_what_is_not_named(dtype: type) -> None:
    found = mapped(np.array([[0, 255, 300]], dtype), mapping={255: 1})
    np.testing.assert_array_equal(found, np.array([[0, 1, 300]], dtype), strict=True)


def test_masks_of_one_bit() -> None:
    found = mapped(np.array([[False, True]]), mapping={0: 1, 1: 0})
    np.testing.assert_array_equal(found, np.array([[1, 0]], np.uint8), strict=True)


def test_without_a_label_map() -> None:
    assert MapLabelValues(ignore=11)(dict(img=1)) == dict(img=1)


def test_from_a_config_and_back() -> None:
    text = "step = dict(type='MapLabelValues', mapping={255: 1}, ignore=(11,))"
    step = Config.fromstring(Config.fromstring(text, '.py').pretty_text, '.py').step
    built = TRANSFORMS.build(step)
    assert repr(built) == 'MapLabelValues(mapping={255: 1}, ignore=(11,))'
    assert repr(TRANSFORMS.build(dict(type='mmengine.MapLabelValues'))).endswith('ignore=())')
    assert MapLabelValues(mapping={'255': '1'}).mapping == {255: 1}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(mapping={256: 1}), 'mapping has 256, expected whole numbers from 0 to 255: label'),
        (dict(mapping={1: -1}), 'mapping has -1, expected'),
        (dict(mapping={1: 0.5}), 'mapping has 0.5, expected'),
        (dict(mapping={True: 1}), 'mapping has True, expected'),
        (dict(mapping=[255, 1]), 'expected a dict from values to values, for instance {255: 1}'),
        (dict(ignore=('void',)), "ignore has 'void', expected"),
        (dict(ignore=65535), 'ignore has 65535, expected'),
        (dict(mapping={3: 1}, ignore=(3,)), '3 is in mapping and in ignore'),
    ],
)
def test_wrong_arguments(settings: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        MapLabelValues(**settings)
    assert str(caught.value).startswith('MapLabelValues: ')
    assert message in str(caught.value)
