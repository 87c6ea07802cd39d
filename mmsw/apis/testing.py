"""What a test run may be asked for beside the scores: other models, pictures, predictions."""

from __future__ import annotations

import copy
import os
from pathlib import Path

from mmengine.config import Config

from mmsw.component_name import component_name
from mmsw.errors import UsageError

from .config import config_name
from .data import iter_datasets

# default scope -> hook that draws what was tested, and what switches it on
_DRAWING_HOOKS = {
    'mmseg': ('mmseg.SegVisualizationHook', dict(draw=True)),
    'mmdet': ('mmdet.DetVisualizationHook', dict(draw=True)),
    'mmpretrain': ('mmpretrain.VisualizationHook', dict(enable=True)),
}


def enable_tta(cfg: Config) -> None:
    """Test with ``tta_model`` and ``tta_pipeline`` of the config."""
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UsageError(f'{config_name(cfg)} has no {key}, which test-time augmentation needs')
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    for dataset in iter_datasets(cfg.test_dataloader.dataset):
        dataset['pipeline'] = copy.deepcopy(cfg.tta_pipeline)


def enable_drawing(cfg: Config, scope: str, folder: str | os.PathLike[str]) -> None:
    """Save a picture of every tested image in ``folder``."""
    if scope not in _DRAWING_HOOKS:
        raise UsageError(
            f'{config_name(cfg)} has default_scope={scope!r}, which has nothing to draw pictures '
            f'with (--show-dir); {list(_DRAWING_HOOKS)} have'
        )
    folder = _free_folder(folder)
    kind, settings = _DRAWING_HOOKS[scope]
    hooks = dict(cfg.get('default_hooks') or {})
    hook = dict(hooks.get('visualization') or {}, **settings, interval=1)
    hook.setdefault('type', kind)
    if scope == 'mmdet':
        hook['test_out_dir'] = folder
    elif scope == 'mmpretrain':
        hook['out_dir'] = folder
    else:
        visualizer = dict(cfg.get('visualizer') or {'type': 'mmseg.SegLocalVisualizer'})
        visualizer['vis_backends'] = [dict(type='LocalVisBackend', img_save_dir=folder)]
        cfg.visualizer = visualizer
    cfg.default_hooks = dict(hooks, visualization=hook)


def enable_output(cfg: Config, scope: str, out: str | os.PathLike[str]) -> None:
    """Save predictions: label maps in a folder for mmseg, one pickle file for the others."""
    evaluators = cfg.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    if scope == 'mmseg':
        writers = [item for item in evaluators if component_name(item.get('type')) == 'IoUMetric']
        if not writers:
            raise UsageError(
                f'test_evaluator of {config_name(cfg)} has no IoUMetric to write label maps'
            )
        writers[0]['output_dir'] = _free_folder(out)
    else:
        if Path(out).suffix not in ('.pkl', '.pickle'):
            what = 'detections' if scope == 'mmdet' else 'predictions'
            raise UsageError(f'{what} are written to one .pkl file, got {os.fspath(out)!r}')
        writer = 'mmdet.DumpDetResults' if scope == 'mmdet' else 'DumpResults'
        evaluators.append(dict(type=writer, out_file_path=os.fspath(out)))
    cfg.test_evaluator = evaluators


def _free_folder(folder: str | os.PathLike[str]) -> str:
    if Path(folder).exists() and not Path(folder).is_dir():
        raise UsageError(f'{os.fspath(folder)} is a file, expected a folder to write to')
    return os.path.abspath(folder)
