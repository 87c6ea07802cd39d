"""Our loaders, which name a broken file, in the place of the stock ones that configs name.

Configs say ``LoadImageFromFile`` and ``LoadAnnotations``, which every program of the toolboxes
knows. Where something of ours builds a pipeline, the validating loaders of :mod:`mmsw.datasets` are
built instead. The config itself is left as it is. ``stock_loaders = True`` in a config switches
that off.
"""

from __future__ import annotations

import inspect
from typing import Any

from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmsw.component_name import component_name, component_package
from mmsw.datasets import LoadValidAnnotations, LoadValidImageFromFile

_VALID = {
    'LoadImageFromFile': LoadValidImageFromFile,
    'LoadAnnotations': LoadValidAnnotations,
}
# packages whose classes of these names are the stock ones -> scope to build them in
_STOCK = {'mmcv': 'mmengine', 'mmseg': 'mmseg', 'mmdet': 'mmdet'}


def with_valid_loaders(value: Any, cfg: Config) -> Any:
    """A part of a config with the validating loaders in the place of the stock ones.

    Only the classes of mmcv, mmseg and mmdet are replaced, wherever they stand in wrappers. Classes
    that are derived from them stay, and so do loaders with an argument that ours do not have.

    Args:
        value: For instance a data loader, or a pipeline. It is not changed.
        cfg: The config that it belongs to.

    Returns:
        The part, with new dicts and lists.
    """
    return value if cfg.get('stock_loaders', False) else _replaced(value)


def _replaced(value: Any) -> Any:
    if isinstance(value, dict):
        items = {key: _replaced(item) for key, item in dict.items(value)}
        return type(value)({**items, **_valid_kind(value)})
    if type(value) in (list, tuple):
        return type(value)(_replaced(item) for item in value)
    return value


def _valid_kind(step: dict) -> dict[str, str]:
    """What to write into the config of a stock loader; nothing for anything else."""
    valid = _VALID.get(component_name(step.get('type')))
    if valid is None:
        return {}
    stock = _class_of(step)
    package = component_package(stock)
    if getattr(stock, '__name__', None) not in _VALID or package not in _STOCK:
        return {}
    parameters = inspect.signature(valid).parameters
    known = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    if not known and step.keys() - parameters.keys() - {'type', '_scope_'}:
        return {}
    return dict(type=valid.__name__, _scope_=_STOCK[package])


def _class_of(step: dict) -> Any:
    """The class that a config of a transform is built with; ``None`` if there is none."""
    kind = step['type']
    if not isinstance(kind, str):
        return kind
    with TRANSFORMS.switch_scope_and_registry(step.get('_scope_')) as registry:
        try:
            return registry.get(kind)
        except RuntimeError:  # building it will tell
            return None
