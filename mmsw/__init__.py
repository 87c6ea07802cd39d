"""mmsw: shift-wise networks for dense prediction in OpenMMLab.

Importing the package registers its components in mmengine's registries and allow-lists the harmless
classes that checkpoints hold; it starts no compiler, no kernel runtime and no CUDA context.
"""

from . import datasets, engine, models
from .checkpoint import allow_checkpoint_classes
from .version import __version__

allow_checkpoint_classes()

__all__ = ['__version__', 'datasets', 'engine', 'models']
