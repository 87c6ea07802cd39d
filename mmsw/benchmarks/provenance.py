"""What a result comes from: digests of code and tensors, versions of packages."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import Tensor

import mmsw

from .files import source_digest

_PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmsegmentation', 'mmdet')
_FORKS = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'onedl-mmdetection')


def network_digest() -> str:
    """Digest of the code that makes a network and fills it."""
    root = Path(mmsw.__file__).parent
    folders = [root / name for name in ('checkpoint', 'models', 'sparsity')]
    return source_digest([*folders, *sorted((root / 'ops').glob('*.py'))])


def package_versions() -> dict[str, str]:
    """Versions of what a training depends on, as installed."""
    found = {'mmsw': mmsw.__version__}
    for name in (*_PACKAGES, *_FORKS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def tensor_digest(tensors: list[Tensor]) -> str:
    """Digest of the bytes of tensors."""
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:16]
