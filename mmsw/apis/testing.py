"""What a test run may be asked for beside the scores: other models, pictures, predictions."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.component_name import component_name
from mmsw.errors import UsageError

from .checks.folders import check_writable
from .config import config_name
from .data import datasets_of, iter_datasets
from .fold_hook import enable_folding
from .result_files import ResultFilesHook

# default scope -> hook that draws what was tested, and what switches it on
_DRAWING_HOOKS = {
    'mmseg': ('mmseg.SegVisualizationHook', dict(draw=True)),
    'mmdet': ('mmdet.DetVisualizationHook', dict(draw=True)),
    'mmpretrain': ('mmpretrain.VisualizationHook', dict(enable=True)),
}


def prepare_test(
    cfg: Config,
    scope: str,
    *,
    tta: bool = False,
    show_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    no_truth: bool = False,
    deploy: bool = False,
) -> None:
    """Change a config to what a test is asked for, in place.

    Args:
        cfg: A test config.
        scope: The toolbox that it is for.
        tta: Average over the scales and flips of ``tta_pipeline``.
        show_dir: Folder for a picture of every image.
        out: Where predictions go.
        no_truth: Whether there is nothing to compare predictions with.
        deploy: Fold the model when its weights are loaded.

    Raises:
        UsageError: If something asked for is impossible.
    """
    if deploy:
        enable_folding(cfg)
    if tta or cfg.get('use_tta', False):
        enable_tta(cfg)
    if out is None and scope == 'mmseg':
        out = _named_output(cfg)
    if no_truth:
        if show_dir is None and out is None:
            raise UsageError(
                'without truth nothing is scored (--no-truth): say where predictions go, with '
                '--out PATH or --show-dir PATH'
            )
        drop_truth(cfg, scope)
    settle_format_only(cfg, out)
    if show_dir is not None:
        enable_drawing(cfg, scope, show_dir)
    if out is not None:
        enable_output(cfg, scope, out)


def enable_tta(cfg: Config) -> None:
    """Test with ``tta_model`` and ``tta_pipeline`` of the config."""
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UsageError(f'{config_name(cfg)} has no {key}, which test-time augmentation needs')
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    for dataset in iter_datasets(cfg.test_dataloader.dataset):
        dataset['pipeline'] = copy.deepcopy(cfg.tta_pipeline)


def drop_truth(cfg: Config, scope: str) -> None:
    """Test without truth: no annotations are loaded, no metric compares anything."""
    if scope not in ('mmseg', 'mmdet'):
        raise UsageError(
            f'{config_name(cfg)} has default_scope={scope!r}; testing without truth (--no-truth) '
            'works for mmseg and mmdet'
        )
    _load_no_labels(cfg.test_dataloader)
    cfg.test_evaluator = []


def _named_output(cfg: Config) -> str | None:
    """The folder for label maps that a metric of mmseg in the config names."""
    folders = [item.get('output_dir') for item in _metrics(cfg) if _is_iou(item)]
    return next(filter(None, folders), None)


def settle_format_only(cfg: Config, out: str | os.PathLike[str] | None) -> None:
    """Where metrics only write predictions down, do without label maps that are not there.

    Args:
        cfg: A test config.
        out: Where label maps are written.

    Raises:
        UsageError: If truth is needed, and the folder of label maps does not exist; or if a metric
            only writes and has nowhere to write to, which it would say after the whole test.
    """
    writers = [item for item in _metrics(cfg) if isinstance(item, dict) and item.get('format_only')]
    if out is None and any(map(_is_iou, writers)):
        raise UsageError(
            f'IoUMetric in test_evaluator of {config_name(cfg)} has format_only=True, and nowhere '
            'to write: name a folder with --out PATH'
        )
    lacking = [_lacking_labels(item) for item in datasets_of(cfg, 'test_dataloader')]
    absent = next(filter(None, lacking), None)
    if all(item is None for item in lacking):
        return
    if writers and len(writers) == len(_metrics(cfg)):
        _load_no_labels(cfg.test_dataloader)
    elif absent and _loads_labels(cfg.test_dataloader):
        raise UsageError(
            f'test_dataloader has no label maps: {absent} does not exist. Name their folder, or '
            'predict without truth, with --no-truth and --out PATH or --show-dir PATH'
        )


def _metrics(cfg: Config) -> list:
    evaluators = cfg.get('test_evaluator') or []
    return list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]


def _is_iou(metric: Any) -> bool:
    return isinstance(metric, dict) and component_name(metric.get('type')) == 'IoUMetric'


def _lacking_labels(dataset: dict) -> str | None:
    """The folder of label maps that a data set of mmseg with images lacks.

    Empty if the config names none, where a data set of one's own may know better; ``None`` if
    nothing is known to be lacking.
    """
    prefix = dataset.get('data_prefix')
    if not (isinstance(prefix, dict) and 'img_path' in prefix):
        return None
    if prefix.get('seg_map_path') is None:
        return ''
    root = dataset.get('data_root') or ''
    images, labels = (os.path.join(root, prefix[key]) for key in ('img_path', 'seg_map_path'))
    return labels if _is_there(images) and not _is_there(labels) else None


def _is_there(path: str) -> bool:
    return '://' not in path and os.path.isdir(path)


def _load_no_labels(loader: dict) -> None:
    """Take the annotation steps and the folders of label maps out of a data loader."""
    for dataset in iter_datasets(loader.dataset):
        prefix = dataset.get('data_prefix')
        if isinstance(prefix, dict):
            prefix.pop('seg_map_path', None)
    _without_annotations(loader.dataset)


def _loads_labels(value: Any) -> bool:
    """Whether a part of a config loads annotations."""
    if isinstance(value, dict):
        return _is_annotation_step(value) or any(map(_loads_labels, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_loads_labels, value))


def _is_annotation_step(value: Any) -> bool:
    name = component_name(value.get('type')) if isinstance(value, dict) else ''
    return name.startswith('Load') and 'Annotation' in name


def _without_annotations(value: Any) -> Any:
    """The value without annotation steps; dicts in place, and no list that held nothing else."""
    if isinstance(value, dict):
        for key, item in list(value.items()):
            if isinstance(item, (dict, list, tuple)):
                kept = _without_annotations(item)
                if kept != item:  # what a pure-Python config holds stays as it is
                    value[key] = kept
    elif isinstance(value, (list, tuple)):
        pairs = [(item, _without_annotations(item)) for item in value]
        return type(value)(
            kept for item, kept in pairs if not _is_annotation_step(item) and (kept or kept == item)
        )
    return value


def enable_drawing(cfg: Config, scope: str, folder: str | os.PathLike[str]) -> None:
    """Save a picture of every tested image in ``folder``."""
    if scope not in _DRAWING_HOOKS:
        raise UsageError(
            f'{config_name(cfg)} has default_scope={scope!r}, which has nothing to draw pictures '
            f'with (--show-dir); {list(_DRAWING_HOOKS)} have'
        )
    folder = check_writable(folder, '--show-dir')
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
        others = [
            item
            for item in visualizer.get('vis_backends') or ()
            if component_name(item.get('type')) != 'LocalVisBackend'
        ]
        visualizer['vis_backends'] = [dict(type='LocalVisBackend', img_save_dir=folder), *others]
        cfg.visualizer = visualizer
    cfg.default_hooks = dict(hooks, visualization=hook)
    _add_result_files(cfg)


def enable_output(cfg: Config, scope: str, out: str | os.PathLike[str]) -> None:
    """Save predictions: label maps in a folder for mmseg, one pickle file for the others."""
    if scope == 'mmseg':
        _add_result_files(cfg, label_maps=check_writable(out, '--out'))
        kept = [item for item in _metrics(cfg) if not (_is_iou(item) and item.get('format_only'))]
        for item in filter(_is_iou, kept):
            item.pop('output_dir', None)  # it would write too, by names without folders
        cfg.test_evaluator = kept
        return
    if Path(out).suffix not in ('.pkl', '.pickle'):
        what = 'detections' if scope == 'mmdet' else 'predictions'
        raise UsageError(f'{what} are written to one .pkl file, got {os.fspath(out)!r}')
    if Path(out).is_dir():
        raise UsageError(f'--out {os.fspath(out)} is a folder, expected a file')
    check_writable(Path(out).parent, '--out, folder')
    writer = 'mmdet.DumpDetResults' if scope == 'mmdet' else 'DumpResults'
    cfg.test_evaluator = [*_metrics(cfg), dict(type=writer, out_file_path=os.fspath(out))]


def _add_result_files(cfg: Config, label_maps: str | None = None) -> None:
    """Let one hook name the files of all images."""
    hooks = [dict(hook) for hook in cfg.get('custom_hooks') or ()]
    ours = [hook for hook in hooks if component_name(hook.get('type')) == ResultFilesHook.__name__]
    if not ours:
        ours = [dict(type=ResultFilesHook.__name__)]
        hooks += ours
    if label_maps is not None:
        ours[0]['label_maps'] = label_maps
    cfg.custom_hooks = hooks
