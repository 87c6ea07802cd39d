"""Configs of this package by their names, from any folder."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mmsw.config_package import FOLDER
from mmsw.errors import UsageError


def config_path(config: Path) -> Path:
    """The file that is meant: itself, or the config of this package of that name.

    A folder of that name, such as a work folder, does not count.

    Args:
        config: Path of a file, or a name such as ``upernet_sw_t_ade20k``, with or without ``.py``,
            with or without its folder (``demo/``), with or without ``mmsw::``.

    Raises:
        UsageError: If there is neither; names those that are near.
    """
    if config.is_file():
        return config
    known = {path.relative_to(FOLDER).as_posix(): path for path in sorted(FOLDER.rglob('*.py'))}
    wanted = config.with_suffix('.py').as_posix().removeprefix('mmsw::')
    for name, path in known.items():
        if wanted == name or wanted == path.name:
            return path
    if config.exists():
        return config
    names = [name.removesuffix('.py') for name in known if not name.startswith('_base_/')]
    near = get_close_matches(config.stem, names, n=3, cutoff=0.5)
    hint = f'; configs of mmsw with such a name: {", ".join(near)}' if near else ''
    raise UsageError(f'config file {config} does not exist (working folder: {Path.cwd()}){hint}')
