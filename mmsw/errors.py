"""Errors that a user can act on: the tools print them as one line."""

from __future__ import annotations


class MmswError(Exception):
    """Base of the errors whose message says what was wrong, what was expected and what to do."""


class SparsityError(MmswError, ValueError):
    """A network cannot be made or kept sparse as asked."""
