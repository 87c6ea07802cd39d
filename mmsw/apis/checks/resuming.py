"""What is another in a resumed run than in the run that saved its checkpoint."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from mmengine.runner import IterBasedTrainLoop, Runner

from mmsw.wording import listed

from .total_batch import accumulated


def changes_on_resume(checkpoint: Mapping[str, Any], runner: Runner) -> list[str]:
    """What to say of a run that goes on otherwise than it began.

    The checkpoint holds the config of its run as text, which is read and not run.

    Args:
        checkpoint: Content of the file.
        runner: Of the resumed run, whose training loop is built.

    Returns:
        One sentence per change, with both values; none about what the file does not tell.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    before = settings_of_text(meta.get('cfg'))
    now = dict(runner.cfg.items())
    said = [
        _length(before, runner, meta),
        _batch(before, now),
        _rate(before, now),
        _classes(meta, runner),
    ]
    return [text for text in said if text]


def settings_of_text(text: Any) -> dict[str, Any]:
    """The values at the top of a config's text that are plain data.

    Args:
        text: As mmengine writes it: assignments of numbers, texts, lists, tuples and dicts.

    Returns:
        By name; calls of anything but ``dict`` inside are ``None``. Empty for anything else.
    """
    try:
        lines = ast.parse(text).body if isinstance(text, str) else []
    except (SyntaxError, ValueError, RecursionError):
        return {}
    return {
        line.targets[0].id: _value(line.value)
        for line in lines
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        return {item.arg: _value(item.value) for item in node.keywords}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key): _value(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _at(settings: Any, *keys: str) -> Any:
    for key in keys:
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


def _length(before: Mapping[str, Any], runner: Runner, meta: Mapping[str, Any]) -> str | None:
    by_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
    key, unit = ('max_iters', 'iterations') if by_iterations else ('max_epochs', 'epochs')
    old, new = _at(before, 'train_cfg', key), getattr(runner.train_loop, key, None)
    done = meta.get('iter' if by_iterations else 'epoch')
    if not (isinstance(old, int) and isinstance(new, int)) or old == new:
        return None
    text = f'this run trains for {new} {unit} (train_cfg.{key}), the resumed one for {old}'
    if isinstance(done, int) and done >= new:
        return f'{text}: after {done} nothing is left to train'
    if not runner.param_schedulers:
        return text
    return (
        f'{text}: the learning rate goes on by the schedule of the checkpoint, which was made for '
        f'{old}. For a schedule of {new}, start a new run from its weights (load_from=PATH, '
        'without --resume)'
    )


def _batch(before: Mapping[str, Any], cfg: dict[str, Any]) -> str | None:
    old, new = (
        _at(before, 'train_dataloader', 'batch_size'),
        _at(cfg, 'train_dataloader', 'batch_size'),
    )
    counts, now = _at(before, 'optim_wrapper', 'accumulative_counts') or 1, accumulated(cfg)
    if not (isinstance(old, int) and isinstance(new, int)) or (old, counts) == (new, now):
        return None
    return (
        f'this run takes batches of {_shown(new, now)} (train_dataloader.batch_size), the resumed '
        f'one {_shown(old, counts)}: the learning rate goes on as for the latter'
    )


def _shown(size: int, counts: int) -> str:
    return f'{size} x {counts} (accumulated)' if counts != 1 else str(size)


def _rate(before: Mapping[str, Any], cfg: dict[str, Any]) -> str | None:
    keys = ('optim_wrapper', 'optimizer', 'lr')
    old, new = _at(before, *keys), _at(cfg, *keys)
    if not all(isinstance(rate, (int, float)) for rate in (old, new)) or old == new:
        return None
    return (
        f'this run sets a learning rate of {new} ({".".join(keys)}), the resumed one {old}: the '
        f'optimizer of the checkpoint goes on with {old}. For another one, start a new run from '
        'its weights (load_from=PATH, without --resume)'
    )


def _classes(meta: Mapping[str, Any], runner: Runner) -> str | None:
    old = _at(meta.get('dataset_meta'), 'classes')
    dataset = getattr(getattr(runner.train_loop, 'dataloader', None), 'dataset', None)
    new = _at(getattr(dataset, 'metainfo', None), 'classes')
    if not all(isinstance(names, (list, tuple)) for names in (old, new)) or [*old] == [*new]:
        return None
    return (
        f'this run has the {len(new)} classes {listed([*map(str, new)])}, the resumed one the '
        f'{len(old)} classes {listed([*map(str, old)])}: the heads keep the order of the latter'
    )
