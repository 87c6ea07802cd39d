"""Configs that hold classes and functions where others have names.

mmengine's pure-Python configs say ``type=RetinaNet``, and so may a config that a program makes. As
soon as somebody touches such a value it is a class, which cannot be written as text, and whoever
looks for a name does not find it. So a config is put into names once, when it is read: it is then
like any other.
"""

from __future__ import annotations

import ast
import os
import traceback
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

from mmsw.component_name import component_name, component_package
from mmsw.errors import UsageError

_LAZY = (LazyAttr, LazyObject)
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType)
# Packages whose components are registered wherever a config of a toolbox is used.
_KNOWN = ('mmcv', 'mmengine', 'mmseg', 'mmdet', 'mmpretrain', 'torch')


def has_classes(cfg: Config) -> bool:
    """Whether a config holds classes or functions, or names them by their modules."""
    return any(
        isinstance(value, (*_LAZY, *_NAMED)) or (key == 'type' and _is_path(value))
        for key, value in _leaves(cfg._to_lazy_dict())
    )


def scope_of_classes(cfg: Config, toolboxes: Collection[str], name: str) -> str | None:
    """The toolbox that the classes in a config are of: that of the model, else that of all others.

    Args:
        cfg: The config.
        toolboxes: Names of packages.
        name: Of the config, for the message.

    Returns:
        One of the packages; ``'mmengine'`` if all types are classes or paths and none is of them;
        ``None`` if there are bare names beside them.

    Raises:
        UsageError: If there are several.
        ImportError: If a class cannot be imported.
    """
    content = cfg._to_lazy_dict()
    model = (content.get('model') or {}).get('type')
    if _package(model) in toolboxes:
        return _package(model)
    kinds = [value for key, value in _leaves(content) if key == 'type']
    packages = {_package(kind) for kind in kinds}
    found = sorted(packages & {*toolboxes})
    if len(found) > 1:
        raise UsageError(
            f'{name} has no default_scope, and its components are of {" and ".join(found)}: say '
            f"which toolbox it is for, e.g. default_scope='{found[0]}'"
        )
    if found:
        return found[0]
    return None if '' in packages else 'mmengine'


def in_names(cfg: Config, scope: str) -> Config:
    """A config with names in the place of its classes.

    Components of the toolboxes get the names that they are registered under, and others the path
    of their module. A class or function that is no ``type`` stays, as a placeholder of mmengine
    where it can be imported, and so does a function that is registered nowhere.

    Args:
        cfg: The config, which is not changed.
        scope: Its toolbox, whose components are registered.

    Returns:
        A new config, which says its ``default_scope``.

    Raises:
        ImportError: If a class cannot be imported.
    """
    content = {
        key: _converted(value, None, scope)
        for key, value in cfg._to_lazy_dict().items()
        if not isinstance(value, (types.FunctionType, types.ModuleType))  # as of text configs
    }
    return Config(
        {**content, 'default_scope': scope},
        cfg_text=cfg.text,
        filename=cfg.filename,
        env_variables=cfg.env_variables,
        format_python_code=cfg._format_python_code,
    )


def unreadable(error: RuntimeError, path: Path) -> str | None:
    """Why mmengine cannot read a config file, where its own error says nothing or too much.

    Returns:
        What to say; ``None`` for an error of another kind.
    """
    trace = traceback.extract_tb(error.__traceback__)
    if 'inheritance chain' in str(error):
        return (
            'it inherits from a config in pure Python (with read_base() or imports at its top), or '
            'the other way round: write both in one style'
        )
    if str(error) or Path(trace[-1].filename).name != 'lazy.py':
        return None
    lines = [frame.lineno for frame in trace if Path(frame.filename).name == path.name]
    return (
        f'line {lines[-1] if lines else "unknown"} calls what the file imports, and mmengine '
        'imports nothing while it reads a config in pure Python: write the value itself'
    )


def check_can_be_saved(cfg: Config, name: str) -> None:
    """Refuse what cannot be written as text, as every run does with its config.

    Raises:
        UsageError: If the text of a value is no Python, as of a function or a path.
    """
    if not cfg._format_python_code:  # then nobody reads what is written
        return
    for key, value in _leaves(cfg._to_lazy_dict()):
        if isinstance(value, (*_LAZY, str, int, float)) or value is None:
            continue
        try:
            ast.parse(str(value), mode='eval')
        except (SyntaxError, ValueError) as error:
            raise UsageError(
                f'{name} has {key}={_shortened(value)}, which cannot be saved as text: '
                f'{_as_text(value)}'
            ) from error


def _shortened(value: Any) -> str:
    return ' '.join(repr(value).split())[:200]


def _as_text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return f'write it as {os.fspath(value)!r}'
    if callable(value):
        return 'put it into a module, and name it by its path'
    return 'write it in numbers, texts, lists and dicts'


def _converted(value: Any, key: str | None, scope: str) -> Any:
    if isinstance(value, dict):
        return {name: _converted(item, name, scope) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_converted(item, None, scope) for item in value)
    written = None
    if isinstance(value, _LAZY):
        written, value = f'{value.module}.{value}', value.build()
    elif key == 'type' and _is_path(value):
        written, value = value, _at(value)
        if value is None:
            return written  # building it will tell
    if not isinstance(value, _NAMED):
        return value
    name = _registered_name(value, scope) if key == 'type' else None
    path = name or _path(value, written)
    if name or path is None:
        return name or value
    if key == 'type' and isinstance(value, type):
        return path
    module, _, attribute = path.rpartition('.')
    return LazyObject(module, attribute)


def _registered_name(component: Any, scope: str) -> str | None:
    """The name that a component of a toolbox has in configs of a scope."""
    if component_package(component) not in _KNOWN:
        return None
    if component.__module__ == 'mmcv.ops.nms':  # mmcv evaluates their names right there
        return component.__name__
    for registry in vars(mmengine.registry).values():
        if not isinstance(registry, Registry):
            continue
        nodes = {name: node.module_dict for name, node in registry.children.items()}
        own = nodes.get(scope, {})
        for name, found in {**registry.module_dict, **own}.items():
            if found is component:
                return name
        for other, names in nodes.items():
            for name, found in names.items():
                if found is component and other in _KNOWN:
                    return f'{other}.{name}'
    return None


def _path(component: Any, written: str | None) -> str | None:
    """The shortest path that leads to a component, or how it was written; ``None`` if none does."""
    if written is not None and _at(written) is component:
        return written
    parts = component.__module__.split('.')
    paths = ['.'.join([*parts[: end + 1], component.__qualname__]) for end in range(len(parts))]
    return next((path for path in paths if _at(path) is component), None)


def _at(path: str) -> Any:
    try:
        return get_object_from_string(path)
    except Exception:  # of whatever the module does when it is imported
        return None


def _package(kind: Any) -> str:
    """The package of a class, or of what a path or a name with a scope begins with."""
    if isinstance(kind, _LAZY):
        kind = kind.build()
    if isinstance(kind, str):
        return kind.partition('.')[0] if '.' in kind else ''
    return component_package(kind)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.count('.') > 1 and bool(component_name(value))


def _leaves(value: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with its nearest key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, name)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value
