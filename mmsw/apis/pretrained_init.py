"""Files that mmengine initialises a module from, read as data, and with every zero kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.model import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import load_state_dict
from torch import nn

from mmsw.checkpoint import (
    check_address,
    read_checkpoint,
    warn_of_bare_zeros,
)
from mmsw.checkpoint.folded import refuse_folded
from mmsw.checkpoint.trained import check_form, state_dict_of
from mmsw.engine.loaded_zeros import keep_zeros
from mmsw.errors import CheckpointError

_NAME = 'Pretrained'


class KeepingPretrainedInit(PretrainedInit):
    """As mmengine's; masks that the file brings find their layers, and zeros become masks.

    Addresses that only mmengine knows (``torchvision://``) go to mmengine.
    """

    def __call__(self, module: nn.Module) -> None:
        if not _can_be_read(self.checkpoint):
            super().__call__(module)
            return
        checkpoint = read_checkpoint(self.checkpoint)
        state = state_dict_of(checkpoint)
        if self.prefix is not None:
            prefix = self.prefix if self.prefix.endswith('.') else f'{self.prefix}.'
            for key in list(state):
                value = state.pop(key)
                if key.startswith(prefix):
                    state[key.removeprefix(prefix)] = value
            if not state:
                raise CheckpointError(
                    f'{self.checkpoint} has no tensor under the prefix {prefix!r}; name another '
                    'one in init_cfg'
                )
        refuse_folded(state, module, self.checkpoint)
        check_form(module, state, self.checkpoint)
        keep_zeros(module, state, checkpoint, self.checkpoint)
        warn_of_bare_zeros(state, self.checkpoint)
        load_state_dict(module, state, strict=False, logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


def _can_be_read(address: str) -> bool:
    if '://' not in address:
        return True
    try:
        check_address(address)
    except CheckpointError:
        return False
    return True


@contextmanager
def zeros_are_kept() -> Iterator[None]:
    """Inside, ``init_cfg=dict(type='Pretrained', ...)`` keeps the zeros of its file."""
    before = WEIGHT_INITIALIZERS.module_dict[_NAME]
    WEIGHT_INITIALIZERS.register_module(_NAME, force=True, module=KeepingPretrainedInit)
    try:
        yield
    finally:
        WEIGHT_INITIALIZERS.register_module(_NAME, force=True, module=before)
