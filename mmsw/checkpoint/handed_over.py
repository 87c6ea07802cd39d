"""``pretrained`` of a backbone, which a toolbox may hand over: what it means here."""

from __future__ import annotations

import os
from typing import Any

from mmsw.errors import CheckpointError

from .addresses import check_address


def start_from(
    pretrained: str | os.PathLike[str], init_cfg: Any = None, network: str = 'ShiftWiseNet'
) -> dict[str, str]:
    """What ``init_cfg`` says where ``pretrained`` is given.

    Args:
        pretrained: Local file or address, see :func:`mmsw.checkpoint.read_checkpoint`.
        init_cfg: The ``init_cfg`` that stands beside it.
        network: Name of the kind of the backbone, for messages.

    Raises:
        CheckpointError: If it names no file of this network, or both are given.
    """
    if not isinstance(pretrained, (str, os.PathLike)):
        raise CheckpointError(
            f'pretrained={pretrained!r} is no file: expected the path of a checkpoint, or None'
        )
    path = os.fspath(pretrained)
    if init_cfg:
        raise CheckpointError(
            f'the backbone has init_cfg={init_cfg} and is to start from pretrained={path!r} as '
            'well: keep one of them. model.pretrained=None drops the one that the segmentor of '
            'the base config hands over'
        )
    if '://' in path:
        try:
            check_address(path)
        except CheckpointError as error:
            raise CheckpointError(
                f'pretrained={path!r} is for another network than {network}: set '
                'model.pretrained=None in the config, or name a file of this network there'
            ) from error
    return dict(type='Pretrained', checkpoint=path)
