"""Whole numbers that users hand over, as Python's own."""

from __future__ import annotations

import operator
from contextlib import suppress
from typing import Any

import numpy as np


def whole_number(value: Any, name: str, positive: bool = False) -> int:
    """A whole number of any type, numpy's included, as ``int``.

    Args:
        value: What was given. Truth values and floats are no whole numbers.
        name: What it is for, for the message.
        positive: Refuse numbers below 1.

    Raises:
        ValueError: If it is no whole number, or not positive.
    """
    number = None
    with suppress(TypeError):
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    if number is None or (positive and number < 1):
        kind = 'a positive integer' if positive else 'a whole number'
        raise ValueError(f'{name} must be {kind}, got {value!r}')
    return number


def whole_numbers(values: Any, name: str) -> tuple[int, ...]:
    """One whole number, or a sequence of them, as a tuple of ``int``.

    Args:
        values: What was given.
        name: What it is for, for the message.

    Raises:
        ValueError: If one of them is no whole number.
    """
    several = (values,)
    with suppress(TypeError):  # one number has nothing to go through
        several = (values,) if isinstance(values, (str, bytes)) else tuple(values)
    try:
        return tuple(whole_number(value, name) for value in several)
    except ValueError as error:
        raise ValueError(f'{name} must be whole numbers, got {values!r}') from error
