"""The tables of the published networks, by which a change of the random generators is noticed.

A published file holds neither shift patterns nor the order of the channels: both are drawn again,
with torch's and numpy's generators. Neither torch nor numpy promises that theirs draw the same for
ever. A network that draws other tables than it was trained with gives wrong results without a word.

What this environment draws, to be written into this file when another network is published::

    python -c 'from mmsw.checkpoint.published import drawn_digests as d; print(*d(), sep="\\n")'
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from mmsw.errors import CheckpointError
from mmsw.ops import ShiftPattern
from mmsw.ops.ghost_channels import channel_order

from .shape import PATH

_ARCHS = {  # of the published networks: version, N, channels of all stages of tiny, small and base
    ('v1', 5): ((96, 192, 384, 768), (96, 192, 384, 768), (128, 256, 512, 1024)),
    ('v2', 3): ((80, 160, 320, 640), (96, 192, 384, 768), (128, 256, 512, 1024)),
}
_KERNELS, _REPS, _GHOST_RATIO = (51, 49, 47, 13), 4, 0.23
# Small ones, drawn to see whether the generators are the same; there are golden vectors of both.
PROBE_PATTERN = (49, 3, 3, 4)
PROBE_ORDER = (12, 8)

PATTERNS = {  # digests of shift_hv and identity_index, by M, N, channels and repetitions
    (49, 3, 3, 4): 'db6e4a7a1fdb54f6',
    (51, 5, 74, 4): '6504a981ae7ef195',
    (49, 5, 148, 4): '2dfd961344a9af87',
    (47, 5, 296, 4): 'd293341dfee06d33',
    (13, 5, 592, 4): '27a86b6d527409a4',
    (51, 5, 99, 4): '8887851f0424430f',
    (49, 5, 198, 4): '5098685e5f03f94b',
    (47, 5, 395, 4): '1f9824bfec9ddbaf',
    (13, 5, 789, 4): '8b835296172321b2',
    (51, 3, 60, 4): '7c58de8c724d5466',
    (49, 3, 122, 4): 'cc23e994e5422a7d',
    (47, 3, 246, 4): '669e9e6f33b1b2d5',
    (13, 3, 492, 4): '1f0871569e2579f6',
    (51, 3, 72, 4): 'f09d887a84166405',
    (49, 3, 146, 4): '99dc8fe60b53257b',
    (47, 3, 294, 4): '1234c18f7b5d4689',
    (13, 3, 590, 4): 'ee1564defb89aef8',
    (51, 3, 98, 4): '2a5bffa2b97af8ec',
    (49, 3, 196, 4): '2e0a0a82ecb91715',
    (47, 3, 394, 4): 'ff88b3b817878da7',
    (13, 3, 788, 4): 'b5711bbaa2b87905',
}
ORDERS = {  # digests of the order of the channels, by their number and that of the operator's
    (12, 8): '5326a73123abac19',
    (96, 74): '7022ea56c90bd842',
    (192, 148): 'dbfafc6e6b014521',
    (384, 296): 'da4bfc007f293c5a',
    (768, 592): '5ad57dbd5acb89c3',
    (128, 99): 'd88f3c282d0393f3',
    (256, 198): '82efb6690d5910db',
    (512, 395): '0192ef30f289d1d6',
    (1024, 789): '62575a9f2864e9d3',
    (80, 60): 'ebb6645a07301f81',
    (160, 122): 'd95167dfca8b0960',
    (320, 246): '068d3dd32327517b',
    (640, 492): '70c257e3906e940e',
    (96, 72): 'ee10314d1a93e2e0',
    (192, 146): '122fffe7efb3e228',
    (384, 294): 'e93be20729ebf633',
    (768, 590): '03328156cbdb1bf7',
    (128, 98): 'ba99fb604032975c',
    (256, 196): '48871bceb308ee60',
    (512, 394): '41e109d039aea1ca',
    (1024, 788): '4da813b5e17b4fdb',
}


def digest(*tables: Tensor) -> str:
    """Short name of the contents of integer tables, whatever their type."""
    found = hashlib.sha256()
    for table in tables:
        found.update(table.cpu().to(torch.int32).numpy().astype('<i4').tobytes())
    return found.hexdigest()[:16]


def drawn_digests() -> tuple[dict[tuple[int, ...], str], dict[tuple[int, ...], str]]:
    """What ``PATTERNS`` and ``ORDERS`` are in this environment."""
    drawn, sizes = {PROBE_ORDER: channel_order(PROBE_ORDER[0], _GHOST_RATIO, 'v2')}, [PROBE_PATTERN]
    for (version, small_kernel), archs in _ARCHS.items():
        for dims in archs:
            for big_kernel, channels in zip(_KERNELS, dims, strict=True):
                order, active = channel_order(channels, _GHOST_RATIO, version)
                drawn[channels, active] = order, active
                sizes.append((big_kernel, small_kernel, active, _REPS))
    patterns = {size: ShiftPattern.draw(*size) for size in sizes}
    return (
        {size: digest(p.shift_hv, p.identity_index) for size, p in patterns.items()},
        {size: digest(torch.tensor(order)) for size, (order, _) in drawn.items()},
    )


def check_generators(source: str) -> None:
    """Refuse a file that relies on the generators where they draw other tables than they did.

    Args:
        source: Name of the file, for the message.

    Raises:
        CheckpointError: If they do.
    """
    for library, found, expected in _probes():
        if found != expected:
            raise CheckpointError(
                f'{source} holds no tables of its layers, and the generator of {library} draws '
                'other tables than those that the published networks were trained with. Install a '
                f'version of {library} that this mmsw was tested with, or convert the file there '
                'with tools/convert_checkpoint.py: the converted file holds its tables'
            )


def check_drawn(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Refuse to fill a network whose tables are not those that a file relies on.

    Tables that the file holds are not looked at. Of the others, those of the published sizes must
    be the published ones.

    Args:
        own: State dict of the network.
        state: State dict of the file, in the same names.
        source: Name of the file, for the message.

    Raises:
        CheckpointError: If a table is another one.
    """
    for layer in dict.fromkeys(key.rsplit('.', 3)[0] for key in own if PATH.match(key)):
        tables = [own[f'{layer}.pattern.{name}'] for name in ('shift_hv', 'identity_index')]
        order = own[f'{layer}.channel_order']
        if order.is_meta:
            continue
        channels, num_reps = tables[1].shape
        sizes = (*own[f'{layer}.pattern.kernel_sizes'].tolist(), channels, num_reps)
        other = [
            name
            for name, known, found in (
                ('pattern.shift_hv', PATTERNS.get(sizes), tables),
                ('channel_order', ORDERS.get((len(order), channels)), [order]),
            )
            if f'{layer}.{name}' not in state and known not in (None, digest(*found))
        ]
        if not other:
            continue
        check_generators(source)
        raise CheckpointError(
            f'{source} holds no tables of its layers, and {layer}.{other[0]} of the network is not '
            'the one that the published networks were trained with. If the network was filled from '
            'another file before, build it anew; else install versions of torch and numpy that '
            'this mmsw was tested with'
        )


@functools.cache
def _probes() -> tuple[tuple[str, str, str], ...]:
    """What small draws give, and what they gave, by the library whose generator they use."""
    with torch.device('cpu'):  # whatever the default device is
        pattern = ShiftPattern.draw(*PROBE_PATTERN)
        order = torch.tensor(channel_order(PROBE_ORDER[0], _GHOST_RATIO, 'v2')[0])
    return (
        ('torch', digest(pattern.shift_hv, pattern.identity_index), PATTERNS[PROBE_PATTERN]),
        ('numpy', digest(order), ORDERS[PROBE_ORDER]),
    )
