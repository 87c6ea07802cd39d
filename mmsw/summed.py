"""Counts that add up, part by part."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

_Own = TypeVar('_Own', bound='Summed')


class Summed:
    """Base of dataclasses all of whose fields are counts, or are made of counts themselves."""

    def __add__(self: _Own, other: _Own) -> _Own:
        kind = type(self)
        return kind(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(kind)))
