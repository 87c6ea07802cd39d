"""The error about a wish that cannot be fulfilled."""

from mmsw.errors import MmswError


class UsageError(MmswError, ValueError):
    """What was asked for cannot be done; the message says why and what to do instead."""
