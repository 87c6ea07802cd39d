"""What stands in a config for data that its ``own_data`` describes."""

from __future__ import annotations

from typing import Any, NoReturn

from mmengine.registry import DATASETS

from mmsw.errors import UsageError
from mmsw.registration import register


@register(DATASETS)
class OwnData:
    """Stands for the data set of a config until :mod:`mmsw.apis` has read its ``own_data``.

    The tools of mmsw put a data set of the toolbox in its place. Other programs do not know of
    ``own_data``, so building one says what to do.

    Raises:
        UsageError: Always.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UsageError(
            'own_data of this config has not been filled in. The tools of mmsw (tools/train.py and '
            'the others) do that. For another program, write the complete config first: '
            'python tools/print_config.py CONFIG --out FILE'
        )
