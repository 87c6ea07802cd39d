"""Which class a component is: its bare name however a config spells it, its package, its bases."""

from __future__ import annotations

from typing import Any


def component_name(kind: Any) -> str:
    """Name of the class or function that ``type`` in a config means, without scope and module.

    Args:
        kind: ``'IoUMetric'``, ``'mmseg.IoUMetric'``, ``'mmseg.evaluation.IoUMetric'``, the class
            itself, or the placeholder for it in a pure-Python config.

    Returns:
        For instance ``'IoUMetric'``; ``''`` for ``None``.
    """
    if kind is None:
        return ''
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', None)
    if not isinstance(name, str):  # a placeholder of mmengine, which has any attribute
        name = str(kind)
    return name.rpartition('.')[2].rpartition(':')[2]


def component_package(kind: Any) -> str:
    """Package of a class or function, for instance ``'mmseg'``; ``''`` if it has none."""
    return (getattr(kind, '__module__', None) or '').partition('.')[0]


def names_of_bases(component: Any) -> set[str]:
    """Bare names of the class of an object and of those that it is derived from."""
    return {kind.__name__ for kind in type(component).__mro__}
