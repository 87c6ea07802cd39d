"""What ``mmengine.hub.get_model`` looks for by this name in every package."""

from __future__ import annotations


def register_all_modules(init_default_scope: bool = True) -> None:
    """Nothing is left to do: importing mmsw registers its parts, and each model names its toolbox.

    Args:
        init_default_scope: Without effect.
    """
    del init_default_scope
