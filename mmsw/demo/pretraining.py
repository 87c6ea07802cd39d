"""The sparse checkpoint that the demonstration starts from: a short pretraining, sparse all along.

``configs/demo/pretrain_sw_mini_scenes.py`` is the recipe. Here it is run for the backbone of any
config, for a length and a sparsity of choice, quietly and apart from everything else in the
process, and what comes out is one file in this project's form.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn

from mmsw.apis.backbone import backbone_settings, build_backbone
from mmsw.apis.config import load_config
from mmsw.apis.runner import PortableRunner, build_runner
from mmsw.apis.schedule import fit_schedule
from mmsw.checkpoint import (
    load_checkpoint_file,
    load_pretrained,
    network_record,
    save_checkpoint_file,
)
from mmsw.component_name import component_name
from mmsw.config_package import FOLDER
from mmsw.engine.image_channels import image_channels
from mmsw.errors import UsageError
from mmsw.random_state import preserved_random_state
from mmsw.registration import register
from mmsw.sparsity import SparsityReport, lost_zeros, masked_layers, masks, report

_RECIPE = (  # below configs/; the first one is read, the others are what it inherits
    'demo/pretrain_sw_mini_scenes.py',
    '_base_/demo_pretrain_runtime.py',
    '_base_/models/shiftwise_mini.py',
)
_SIDE = 64  # of the images of the recipe, in pixels
_SINGLETONS = (MMLogger, MessageHub, DefaultScope, Visualizer)


@dataclass(frozen=True)
class DemoCheckpoint:
    """What a pretraining wrote.

    Attributes:
        path: The file.
        accuracy: Share of held-out cutouts that the saved model classifies correctly.
        sparsity: Densities, read back from the file.
    """

    path: Path
    accuracy: float
    sparsity: SparsityReport


def make_demo_checkpoint(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: str | os.PathLike[str] | Config,
    sparsity: float = 0.4,
    seed: int = 0,
    epochs: int = 8,
    progress: Callable[[str], None] = print,
) -> DemoCheckpoint:
    """Pretrain the backbone of a config on the demonstration data, sparse, and save it.

    Runs on the CPU. The same arguments give the same file on the same machine; global random states
    are left as they are.

    Args:
        data: Folder that ``tools/make_demo_data.py`` made.
        out: File to write, in this project's form; replaced if it exists.
        config: Config whose ``model.backbone`` is trained; its ``model.data_preprocessor`` says how
            images are normalised.
        sparsity: Share of the small filters to prune in the network as a whole, in ``[0, 1)``; at 0
            it trains dense.
        seed: Of everything random but the choice of background; not negative.
        epochs: Passes over the cutouts, at least 1.
        progress: Called with a line of text after every pass.

    Returns:
        Accuracy and densities.

    Raises:
        UsageError: If an argument makes no sense, or the data are missing.
        mmsw.datasets.DataError: If the data are damaged.
    """
    out = Path(out)
    _check_arguments(out, sparsity, seed, epochs)
    wanted = load_config(config)
    recipe = load_config(recipe_files()[0], data_root=_coco_folder(Path(data)))
    with _undisturbed(), tempfile.TemporaryDirectory(prefix='mmsw_pretraining_') as folder:
        backbone = build_backbone(wanted)
        if sparsity and not any(True for _ in masked_layers(backbone)):
            raise UsageError(
                f'the backbone of {wanted.filename} has no shift-wise layer that could be pruned '
                'while it is pretrained: leave sparsity at 0, and prune the file with '
                'tools/prune.py'
            )
        _put_in(recipe, wanted, backbone)
        _fit(recipe, sparsity, epochs)
        recipe.work_dir, recipe.randomness.seed = folder, seed
        recipe.log_level, recipe.runner_type = 'WARNING', 'DemoCpuRunner'
        runner = build_runner(recipe)
        curve = _LearningCurve(epochs, progress)
        runner.register_hook(curve)
        model = runner.train()
        meta = {
            'mmsw': network_record(backbone),
            'source': 'demonstration scenes',
            'sparsity': sparsity,
            'seed': seed,
            'epochs': epochs,
            'accuracy': curve.accuracy,
        }
        head = {f'head.{key}': value for key, value in model.head.state_dict().items()}
        state = {**model.backbone.state_dict(), **head}
        save_checkpoint_file({'meta': meta, 'state_dict': state}, out)
        return DemoCheckpoint(out, curve.accuracy, _read_back(backbone, out))


def pretraining_iterations(data: str | os.PathLike[str], epochs: int = 8) -> int:
    """Iterations of :func:`make_demo_checkpoint` for the same data and passes.

    Args:
        data: Folder that ``tools/make_demo_data.py`` made.
        epochs: Passes over the cutouts, at least 1.

    Raises:
        UsageError: If the data are missing.
        mmsw.datasets.DataError: If the data are damaged.
    """
    recipe = load_config(recipe_files()[0], data_root=_coco_folder(Path(data)))
    return epochs * _iterations_per_epoch(recipe)


def _check_arguments(out: Path, sparsity: float, seed: int, epochs: int) -> None:
    if not 0 <= sparsity < 1:
        raise UsageError(f'sparsity must be in [0, 1), got {sparsity}')
    if seed < 0:
        raise UsageError(f'seed must not be negative, got {seed}')
    if epochs < 1:
        raise UsageError(f'epochs must be at least 1, got {epochs}')
    if out.is_dir():
        raise UsageError(f'{out} is a folder; name the file to write')


def recipe_files() -> list[Path]:
    """The config of the pretraining and what it inherits, in a clone or as installed.

    Raises:
        UsageError: If they are not there.
    """
    if (FOLDER / _RECIPE[0]).is_file():
        return [FOLDER / name for name in _RECIPE]
    raise UsageError(f'{FOLDER / _RECIPE[0]} is missing; install mmsw again')


def _coco_folder(data: Path) -> Path:
    for split in ('train', 'val'):
        annotations = data / f'coco/annotations/instances_{split}2017.json'
        if not annotations.is_file():
            raise UsageError(
                f'no demo data in {data}: {annotations} is missing (working folder: {Path.cwd()}). '
                f'Make them: python tools/make_demo_data.py {data}'
            )
    return data / 'coco'


def _put_in(recipe: Config, wanted: Config, backbone: nn.Module) -> None:
    """Give the recipe the backbone of another config, and the normalisation of its images."""
    last = max(backbone.out_indices)
    settings = backbone_settings(wanted)
    if any(True for _ in masked_layers(backbone)):
        settings.update(out_indices=(last,), init_cfg=recipe.model.backbone.init_cfg)
    else:  # of a toolbox, with initial values of its own
        scope = wanted.get('default_scope')
        settings.update(
            out_indices=(last,), init_cfg=None, **(dict(_scope_=scope) if scope else {})
        )
    preprocessor = wanted.model.get('data_preprocessor') or {}
    normalisation = {key: preprocessor.get(key) for key in ('mean', 'std')}
    for key in ('bgr_to_rgb', 'rgb_to_bgr'):
        normalisation[key] = bool(preprocessor.get(key))
    recipe.model = dict(
        recipe.model,
        backbone=settings,
        in_channels=_last_channels(backbone),
        data_preprocessor=dict(recipe.model.data_preprocessor, **normalisation),
    )


def _last_channels(backbone: nn.Module) -> int:
    """Channels of the last map of a backbone."""
    trained = backbone.training
    backbone.train(False)
    with torch.no_grad():
        maps = backbone(torch.zeros(1, image_channels(backbone), _SIDE, _SIDE))
    backbone.train(trained)
    return maps[-1].shape[1]


def _fit(recipe: Config, sparsity: float, epochs: int) -> None:
    """Stretch or shrink the schedule to so many passes over the data, and set the sparsity."""
    per_epoch = _iterations_per_epoch(recipe)
    factor = epochs * per_epoch / recipe.train_cfg.max_iters
    fit_schedule(recipe, epochs * per_epoch, evaluations=epochs)
    if not sparsity:
        recipe.custom_hooks = []
    for hook in recipe.custom_hooks:
        if component_name(hook.type) == 'DynamicSparsityHook':
            hook.sparsity = sparsity
            hook.interval = max(1, round(hook.interval * factor))
            hook.end_iter = int(hook.end_iter * factor)  # what was grown last still has to learn


def _iterations_per_epoch(recipe: Config) -> int:
    loader = recipe.train_dataloader
    return -(-len(DATASETS.build(loader.dataset)) // loader.batch_size)


def _read_back(net: nn.Module, path: Path) -> SparsityReport:
    """Densities of a file as a training run will find it; raises if a pruned weight is not zero."""
    if not any(True for _ in masked_layers(net)):
        return report(net)
    load_pretrained(net, path)
    lost = lost_zeros(load_checkpoint_file(path)['state_dict'], masks(net))
    if lost:
        raise RuntimeError(f'pruned weights are not zero in {path}: {lost}')
    return report(net)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave random states, and which logger and scope of mmengine are current, as they were."""
    before = {kind: set(kind._instance_dict) for kind in _SINGLETONS}
    threads = cv2.getNumThreads()
    try:
        with preserved_random_state():
            yield
    finally:
        cv2.setNumThreads(threads)
        for kind, names in before.items():
            for name in [name for name in kind._instance_dict if name not in names]:
                made = kind._instance_dict.pop(name)
                for handler in getattr(made, 'handlers', ()):
                    handler.close()


@register(RUNNERS)
class DemoCpuRunner(PortableRunner):
    """A runner that leaves GPUs alone: on the CPU the same run gives the same weights."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """The model where it is, with BN for SyncBN."""
        return revert_sync_batchnorm(model)


class _LearningCurve(Hook):
    """Tells after every pass how far the training is.

    Args:
        epochs: Passes in all.
        progress: Called with a line of text.

    Attributes:
        accuracy: The latest, on held-out cutouts.
    """

    def __init__(self, epochs: int, progress: Callable[[str], None]) -> None:
        self.epochs = epochs
        self.progress = progress
        self.accuracy = 0.0
        self._losses: list[float] = []
        self._passed = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Remember the loss."""
        self._losses.append(outputs['loss'].item())

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say it."""
        self._passed += 1
        self.accuracy = metrics['accuracy']
        self.progress(
            f'epoch {self._passed}/{self.epochs}: loss {statistics.fmean(self._losses):.3f}, '
            f'{report(runner.model).total.density:.1%} of the filters kept, '
            f'held-out accuracy {self.accuracy:.1%}'
        )
        self._losses = []
