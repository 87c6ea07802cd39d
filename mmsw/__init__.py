"""mmsw: shift-wise networks for dense prediction in OpenMMLab.

Importing the package registers its components in mmengine's registries, allow-lists the harmless
classes that checkpoints hold, and tells mmengine where the configs are (``'mmsw::...'``); it starts
no compiler, no kernel runtime and no CUDA context.

Where mmengine or mmcv is absent, only what needs torch alone can be used: :mod:`mmsw.ops` and
:mod:`mmsw.sparsity`. A line of the log says so.
"""

import logging
from importlib.util import find_spec
from typing import NoReturn

from . import ops, sparsity
from .install_hint import how_to_install
from .version import __version__

__all__ = ['__version__', 'checkpoint', 'datasets', 'engine', 'models', 'ops', 'sparsity']

_missing = [name for name in ('mmengine', 'mmcv') if find_spec(name) is None]

if not _missing:
    from . import checkpoint, config_package, datasets, engine, models

    checkpoint.allow_checkpoint_classes()
    config_package.make_known()
else:
    _what_is_missing = (
        f'{" and ".join(_missing)} cannot be found, so of mmsw only mmsw.ops and mmsw.sparsity can '
        f'be used; to have the rest, {how_to_install("openmmlab")}'
    )
    logging.getLogger(__name__).warning(_what_is_missing)

    def __getattr__(name: str) -> NoReturn:
        if name in __all__:
            raise ImportError(_what_is_missing)
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
