"""Which channels bypass the operator, drawn once as the published networks draw them."""

from __future__ import annotations

import numpy as np

VERSIONS = ('v1', 'v2')
SEED = 123


def ghost_channels(channels: int, ghost_ratio: float, version: str) -> list[int]:
    """Channels that pass unchanged, ascending, as the published networks draw them.

    Args:
        channels: Channels C of the map.
        ghost_ratio: Share that passes.
        version: v1 rounds the passing channels down, v2 makes the others an even number.
    """
    if version == 'v1':
        num_ghosts = int(channels * ghost_ratio)
    else:
        num_ghosts = channels - int(channels * (1 - ghost_ratio)) // 2 * 2
    draw = np.random.RandomState(SEED).choice(channels, num_ghosts, replace=False)
    return sorted(draw.tolist())


def channel_order(channels: int, ghost_ratio: float, version: str) -> tuple[list[int], int]:
    """Channels in the order in which a layer takes them: those of the operator, then the ghosts.

    Args:
        channels: Channels C of the map.
        ghost_ratio: Share that passes unchanged, in ``[0, 1)``.
        version: ``'v1'`` or ``'v2'``, see :func:`ghost_channels`.

    Returns:
        The order, and the number of channels that the operator gets.

    Raises:
        ValueError: If it gets none.
    """
    ghosts = ghost_channels(channels, ghost_ratio, version)
    active = [channel for channel in range(channels) if channel not in set(ghosts)]
    if not active:
        raise ValueError(
            f'ghost_ratio {ghost_ratio} leaves none of {channels} channels for the operator'
        )
    return active + ghosts, len(active)
