"""Where the configs of this package lie, and the name that mmengine knows them by.

mmengine finds the configs of a package, ``'mmdet::...'``, by a table of its own.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import mmengine.hub.hub
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

NAME = 'mmsw'
FOLDER = (Path(__file__).parent / '.mim' / 'configs').resolve()  # in a clone a link to configs/
_PREFIX = f'{NAME}::'
_MARK = 'knows_mmsw'  # on functions of mmengine that have been replaced


def make_known() -> None:
    """Let ``_base_ = 'mmsw::...'`` and ``mmengine.hub`` find the configs; twice is fine.

    mmengine takes names with a folder only, and gives what an inherited file builds the scope of
    its package. The configs here are for other packages' scopes, which the config that inherits
    from them names.
    """
    MODULE2PACKAGE[NAME] = NAME  # the module: the distribution has another name, a clone has none
    theirs = Config._get_cfg_path
    if not hasattr(theirs, _MARK):
        Config._get_cfg_path = staticmethod(_marked(_with_own_bases(theirs)))
    theirs = mmengine.hub.hub._get_package_and_cfg_path
    if not hasattr(theirs, _MARK):
        mmengine.hub.hub._get_package_and_cfg_path = _marked(_with_own_names(theirs))


def _marked(function: Any) -> Any:
    """The mark stays where somebody else wraps the function once more."""
    setattr(function, _MARK, True)
    return function


def _with_own_bases(theirs: Any) -> Any:
    @functools.wraps(theirs)
    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if not cfg_path.startswith(_PREFIX):
            return theirs(cfg_path, filename)
        path = FOLDER / _with_suffix(cfg_path.removeprefix(_PREFIX))
        if not path.is_file():
            raise FileNotFoundError(f'{cfg_path}, a base of {filename}: there is no {path}')
        return str(path), None

    return get_cfg_path


def _with_own_names(theirs: Any) -> Any:
    @functools.wraps(theirs)
    def get_package_and_cfg_path(cfg_path: str) -> tuple[str, str]:
        if not cfg_path.startswith(_PREFIX):
            return theirs(cfg_path)
        return NAME, _with_suffix(cfg_path.removeprefix(_PREFIX))

    return get_package_and_cfg_path


def _with_suffix(name: str) -> str:
    return name if name.endswith('.py') else f'{name}.py'
