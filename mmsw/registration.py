"""Entering classes in a registry under their names, also a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Component = TypeVar('Component', bound=type)


def register(registry: Any) -> Callable[[Component], Component]:
    """Decorator that registers a class under its name, as ``registry.register_module()`` does.

    A module that is run again, by ``importlib.reload`` or by a new import, brings its classes once
    more: the new class takes the place of the one that was defined at the same place.

    Args:
        registry: A registry of mmengine.

    Returns:
        The decorator, which returns the class. It raises a ``KeyError`` if another class has the
        name.
    """

    def enter(component: Component) -> Component:
        before = registry.module_dict.get(component.__name__)
        again = before is not None and _place(before) == _place(component)
        registry.register_module(module=component, force=again)
        return component

    return enter


def _place(component: Any) -> tuple[str | None, str | None]:
    return getattr(component, '__module__', None), getattr(component, '__qualname__', None)
