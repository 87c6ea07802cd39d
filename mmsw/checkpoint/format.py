"""What mmsw writes into a checkpoint about its own form: ``meta['mmsw']``, made and read here.

Format 1 has no such record: files of mmsw before 0.1.0, and those of other programs. They are read
for ever. Format 2 has::

    meta['mmsw'] = {
        'format': 2,
        'version': '0.1.0',  # of the mmsw that wrote the file
        'backbone': {...},  # arguments of ShiftWiseNet that the tensors depend on; or None
        'scope': [...],  # names of the ordinary layers that have a mask beside their weight
        'deploy': False,  # whether all shift-wise layers, or the blocks around them, are folded
    }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmsw.errors import CheckpointError
from mmsw.ops import ShiftPattern
from mmsw.version import __version__

from .folded import folded_layers

FORMAT = 2  # one more whenever an older reader would be misled
RECORDED = '_recorded_settings'  # attribute of a network: no name that a subclass would take
_KEY = 'mmsw'


def network_record(net: nn.Module) -> dict[str, Any]:
    """The record of a file that holds the state dict of a network.

    Args:
        net: A backbone or a whole model, as it is saved.

    Returns:
        What belongs under ``meta['mmsw']``, see :mod:`mmsw.checkpoint.format`. ``backbone`` is
        ``None`` where there is no shift-wise network, or several that differ. ``deploy`` is True
        only where all are folded: beside a folded teacher, a student that is trained is not.
    """
    found = [vars(module).get(RECORDED) for module in net.modules()]
    settings = [each for each in found if each is not None]
    whole = any(isinstance(module, ShiftPattern) for module in net.modules())
    alike = bool(settings) and all(other == settings[0] for other in settings)
    return {
        'format': FORMAT,
        'version': __version__,
        'backbone': dict(settings[0]) if alike else None,
        'scope': [name for name, module in net.named_modules() if hasattr(module, 'mask_gate')],
        'deploy': bool(folded_layers(net)) and not whole,
    }


def add_record(checkpoint: dict[str, Any], net: nn.Module) -> None:
    """Put the record of a network into a checkpoint that is about to be written."""
    checkpoint.setdefault('meta', {})[_KEY] = network_record(net)


def read_record(checkpoint: Any, source: str) -> Mapping[str, Any]:
    """The record of a checkpoint.

    Args:
        checkpoint: What a file holds.
        source: Its name, for messages.

    Returns:
        What stands under ``meta['mmsw']``; empty for a file of format 1.

    Raises:
        CheckpointError: If the file is of a newer format, or its record is damaged.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, Mapping) or _KEY not in meta:
        return {}
    record = meta[_KEY]
    found = record.get('format') if isinstance(record, Mapping) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise CheckpointError(
            f"{source} is damaged: its meta['mmsw'] must be a dict with a format from 1 on, got "
            f'{str(record)[:80]}'
        )
    if found > FORMAT:
        raise CheckpointError(
            f'{source} has the format {found} of mmsw {record.get("version")}, this mmsw '
            f'{__version__} reads up to {FORMAT}: install a newer mmsw'
        )
    return record
