"""The error that a user can act on."""


class UsageError(ValueError):
    """What was asked for cannot be done; the message says why and what to do instead."""
