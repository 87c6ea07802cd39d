"""Moving the data of a config to another folder."""

from __future__ import annotations

import logging
import os
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmsw.errors import UsageError
from mmsw.wording import listed

from .data import LOADERS, datasets_of

# Top-level keys that may hold paths below the data root, by how they end.
_PATH_HOLDERS = ('_dataloader', '_evaluator', '_pipeline')
# Keys whose strings are paths for certain, by how they end.
_PATH_KEYS = ('root', 'file', 'prefix', 'path', 'dir', 'folder')
_BELOW_THE_ROOT = ('ann_file', 'data_prefix', 'split')  # relative to data_root where there is one

_CURE = (
    'set the data_root of every data set with --cfg-options, for instance '
    'train_dataloader.dataset.data_root=PATH'
)


def set_data_root(cfg: Config, data_root: str | os.PathLike[str]) -> None:
    """Move all data of a config to another folder, in place.

    mmengine writes the variables of a config out when it reads the file, so setting ``data_root``
    afterwards reaches nothing. Here every path at or below the old root is moved, in all data
    loaders (inside of wrappers as well), evaluators and pipelines. Paths are compared by the place
    that they mean: ``./old``, ``old/`` and an absolute path to it are the same.

    Args:
        cfg: Config with a ``data_root``, or whose data sets all have the same one.
        data_root: The new folder.

    Raises:
        UsageError: If it is not clear which folder to replace, or no data set lies there.
    """
    new = os.path.expanduser(os.fspath(data_root))
    if not new:
        raise UsageError('the data root is empty, expected a folder: take . for this one')
    roots = {
        _place(item['data_root']): item['data_root']
        for loader in LOADERS
        for item in datasets_of(cfg, loader)
        if isinstance(item.get('data_root'), str)
    }
    old = cfg.get('data_root')
    if not old:
        if len(roots) > 1 or (not roots and old is None):
            raise UsageError(
                f'a data root cannot replace {sorted(roots.values()) or "none"}: {_CURE}'
            )
        old = next(iter(roots.values()), '')
    move = _Move(str(old), new)
    for key in list(cfg):
        if key.endswith(_PATH_HOLDERS) and cfg[key] is not None:
            before = move.count
            cfg[key] = move(cfg[key], key)
            if key not in LOADERS:
                move.count = before
    left = sorted(root for place, root in roots.items() if root and not move.reaches(place))
    if not move.count:
        found = f'data_root={listed(left)}' if left else 'no data_root'
        raise UsageError(
            f'data_root={str(old)!r} of the config cannot be replaced, since no data set lies '
            f'there. The data sets have {found}: {_CURE}'
        )
    if left:
        print_log(
            f'the data root moves what lies below {old!r}; the data sets in {listed(left)} stay '
            'where they are',
            'current',
            logging.WARNING,
        )
    cfg.data_root = new


class _Move:
    """Moves paths from below one folder to below another.

    Args:
        old: Folder as a config spells it.
        new: Folder to write.

    Attributes:
        count: Paths that were found below the old folder.
    """

    def __init__(self, old: str, new: str) -> None:
        self.old = _place(old)
        self.new = new
        self.count = 0
        # Then any word looks like a path below it.
        self.holds_working_folder = self.reaches(_place('.'))

    def reaches(self, place: str) -> bool:
        """Whether the old folder is the place, or holds it."""
        return place == self.old or place.startswith(f'{self.old.rstrip("/")}/')

    def __call__(self, value: Any, key: str) -> Any:
        """The value with every path in it moved; ``key`` is where it stands."""
        if isinstance(value, dict):
            root = value.get('data_root')
            joined = bool(root) or (root == '' and self.reaches(_place(root)))
            for name, item in list(value.items()):
                if joined and name in _BELOW_THE_ROOT and not _holds_absolute(item):
                    continue
                # the strings of data_prefix are paths too
                inner = key if key.endswith('prefix') else name
                moved = self(item, inner)
                if moved is not item:  # what a pure-Python config holds stays as it is
                    value[name] = moved
        elif isinstance(value, (list, tuple)):
            items = [self(item, key) for item in value]
            if any(one is not other for one, other in zip(items, value, strict=True)):
                return type(value)(items)
        elif isinstance(value, str):
            return self._moved(value, key)
        return value

    def _moved(self, path: str, key: str) -> str:
        if not path and key != 'data_root':
            return path
        if self.holds_working_folder and not key.endswith(_PATH_KEYS):
            return path
        place = _place(path)
        if not self.reaches(place):
            return path
        self.count += 1
        rest = place[len(self.old) :].lstrip('/')
        if rest and path.endswith(('/', '\\')):
            rest += '/'
        return os.path.join(self.new, rest) if rest else self.new


def _place(path: str) -> str:
    """One spelling for all paths to the same place, with slashes; addresses stay as they are."""
    if '://' in path:
        return path.rstrip('/')
    path = os.path.expanduser(path.replace('\\', '/'))
    return os.path.abspath(path).replace('\\', '/')


def _holds_absolute(value: Any) -> bool:
    """Whether a path, or one in a dict of prefixes, is absolute."""
    if isinstance(value, dict):
        return any(_holds_absolute(item) for item in value.values())
    return isinstance(value, str) and (os.path.isabs(os.path.expanduser(value)) or '://' in value)
