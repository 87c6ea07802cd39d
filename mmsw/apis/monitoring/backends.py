"""The backends of TensorBoard and Weights & Biases in a config, beside those that it has."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config

from mmsw.component_name import component_name
from mmsw.engine.hooks import MonitorHook
from mmsw.errors import UsageError
from mmsw.install_hint import how_to_install
from mmsw.wording import short

PROJECT = 'mmsw'  # of Weights & Biases, where no other is named

# default scope -> visualizer that knows its samples
_VISUALIZERS = {
    'mmseg': 'mmseg.SegLocalVisualizer',
    'mmdet': 'mmdet.DetLocalVisualizer',
    'mmpretrain': 'mmpretrain.UniversalVisualizer',
}


def enable_monitoring(
    cfg: Config,
    tensorboard: bool = False,
    wandb: bool | str = False,
    must_be_there: bool = True,
) -> None:
    """Let a run also log to TensorBoard, Weights & Biases or both, in place.

    The backends of the config stay. Names get the prefixes ``train/`` and ``val/``, by which both
    programs group them, and a :class:`mmsw.engine.hooks.MonitorHook` adds density and pictures.

    Args:
        cfg: A config for training or testing.
        tensorboard: Whether to log to TensorBoard, below the work folder.
        wandb: Whether to log to Weights & Biases; a text is the name of the project.
        must_be_there: Whether the packages must be installed.

    Raises:
        UsageError: If a package cannot be imported.
    """
    if not (tensorboard or wandb):
        return
    visualizer = dict(cfg.get('visualizer') or {})
    backends = [dict(item) for item in visualizer.get('vis_backends') or ()]
    if not visualizer:
        visualizer['type'] = _VISUALIZERS.get(cfg.get('default_scope'), 'Visualizer')
        backends = [dict(type='LocalVisBackend')]  # as mmengine has it
    if tensorboard:
        if must_be_there:
            _check_import('torch.utils.tensorboard', 'tensorboard')
        _backend(backends, 'TensorboardVisBackend')
    if wandb:
        if must_be_there:
            _check_import('wandb', 'wandb')
        settings = _backend(backends, 'WandbVisBackend')
        given = dict(settings.get('init_kwargs') or {})
        given['project'] = wandb if isinstance(wandb, str) else given.get('project', PROJECT)
        settings['init_kwargs'] = given
        settings.setdefault('define_metric_cfg', [dict(name='*', step_metric='iter')])
    cfg.visualizer = dict(visualizer, vis_backends=backends)
    processor = dict(cfg.get('log_processor') or {'type': 'LogProcessor'})
    if component_name(processor.get('type', 'LogProcessor')) == 'LogProcessor':
        processor.setdefault('log_with_hierarchy', True)
        cfg.log_processor = processor
    hooks = list(cfg.get('custom_hooks') or ())
    if not any(_is_monitor(hook) for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type=MonitorHook.__name__)]


def _is_monitor(hook: object) -> bool:
    if isinstance(hook, dict):
        return component_name(hook.get('type')) == MonitorHook.__name__
    return isinstance(hook, MonitorHook)


def _backend(backends: list[dict], name: str) -> dict:
    """The backend of a name, which is added if it is not there."""
    for backend in backends:
        if component_name(backend.get('type')) == name:
            return backend
    backends.append(dict(type=name))
    return backends[-1]


def _check_import(module: str, package: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:  # absent, or of another numpy or protobuf
        raise UsageError(
            f'--{package} needs the package {package}, which cannot be imported '
            f'({short(error)}): `pip install {package}`, or {how_to_install("monitor")}'
        ) from error


@contextmanager
def start_explained() -> Iterator[None]:
    """Inside, what Weights & Biases refuses while a run starts is said in one line.

    Raises:
        UsageError: If it does.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition('.')[0] != 'wandb':
            raise
        raise UsageError(
            f'Weights & Biases cannot be logged to ({short(error)}): log in with `wandb login`, '
            'or set WANDB_MODE=offline in the environment'
        ) from error
