"""A config that prunes step by step while it trains: another one, with a hook and a start."""

from __future__ import annotations

import os
import pprint
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.checkpoint.trained import existing_file
from mmsw.component_name import component_name
from mmsw.engine.hooks.gradual_pruning_hook import GradualPruningHook
from mmsw.errors import UsageError
from mmsw.random_state import preserved_random_state
from mmsw.sparsity import Pruning, PruningSettings
from mmsw.whole_file import write_text
from mmsw.wording import listed

from ..config import load_config, register_toolbox
from ..named_configs import config_path
from .network import TrainedNetwork
from .plan import check_plan

_OTHERS = ('DynamicSparsityHook', 'GradualPruningHook', 'KeepSparsityHook')  # choose masks too
_REPORT = 'SparsityReportHook'
_LAST = '.py'


@dataclass(frozen=True)
class GradualConfig:
    """What was written.

    Attributes:
        path: The config.
        text: What it says.
        layers: Names of the layers that will be pruned.
        left_out: By name of the layers that could be pruned but will not be, the reason.
    """

    path: Path
    text: str
    layers: tuple[str, ...]
    left_out: dict[str, str]

    def __str__(self) -> str:
        lines = [self.text, f'{len(self.layers)} layers will be pruned']
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            lines.append(f'left out ({reason}): {listed(names, 8)}')
        return '\n'.join([*lines, '', f'wrote {self.path}: train it with tools/train.py'])


def write_gradual_config(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    settings: PruningSettings,
    *,
    snip_batches: int = 1,
    overwrite: bool = False,
) -> GradualConfig:
    """Write a config that starts from a checkpoint and prunes it with ``GradualPruningHook``.

    Begin, end and interval are the hook's own defaults; they can be set in the file.

    Args:
        config: File that it inherits from.
        checkpoint: Checkpoint of the whole model; it is tried here.
        path: Config to write, ``.py``.
        settings: What to prune, and how.
        snip_batches: Training batches that ``'snip'`` looks at.
        overwrite: Replace a file that is there.

    Raises:
        UsageError: If a file cannot be used, or the config cannot be inherited from.
        SparsityError: If nothing fits the granularity or scope.
        mmsw.checkpoint.CheckpointError: If the checkpoint is damaged, or of another config.
    """
    path, filename = Path(path), existing_file(checkpoint, 'checkpoint')
    if path.suffix != _LAST:
        raise UsageError(f'a schedule makes a config, whose name ends with {_LAST}, got {path}')
    check_plan(path, overwrite, snip_batches)
    base = config_path(Path(config)).absolute()
    cfg = load_config(config)
    hook = _hook(settings, snip_batches)
    if Config._is_lazy_import(str(base)):
        raise UsageError(
            f'{config} is a config of Python imports, from which no other kind inherits: add the '
            f'hook to its custom_hooks yourself: {hook}'
        )
    with preserved_random_state():
        network = TrainedNetwork.load(cfg, register_toolbox(cfg), filename)
        pruning = Pruning(network.model, settings, only_trained=True)
    start = filename if '://' in filename else os.path.abspath(filename)
    text = _text(cfg, os.path.relpath(base, path.absolute().parent), start, hook)
    write_text(path, text)
    return GradualConfig(path, text, tuple(pruning.layers), pruning.left_out)


def _hook(settings: PruningSettings, snip_batches: int) -> dict[str, Any]:
    given = {**vars(settings), 'snip_batches': snip_batches}
    usual = {**vars(PruningSettings(0.0)), 'snip_batches': 1}
    asked = {k: v for k, v in given.items() if k == 'granularity' or v != usual[k]}
    return dict(type=GradualPruningHook.__name__, **asked)


def _text(cfg: Config, base: str, start: str, hook: dict[str, Any]) -> str:
    plain = cfg.to_dict()
    hooks = [each for each in plain.get('custom_hooks') or () if _name(each) not in _OTHERS]
    hooks.append(hook)
    if all(_name(each) != _REPORT for each in hooks):
        hooks.append(dict(type=_REPORT))
    imports = list((plain.get('custom_imports') or {}).get('imports') or [])
    imports += ['mmsw'] if not any(name.partition('.')[0] == 'mmsw' for name in imports) else []
    listed_hooks = pprint.pformat(hooks, width=100, sort_dicts=False)
    return (
        f'_base_ = [{base!r}]\n'
        f'custom_imports = dict(imports={imports!r}, allow_failed_imports=False)\n'
        f'load_from = {start!r}\n'
        f'custom_hooks = {listed_hooks}\n'
    )


def _name(hook: dict[str, Any]) -> str:
    return component_name(hook.get('type'))
