"""The sparse checkpoint that the demonstration starts from: a short pretraining, pruned on the way.

The backbone of a config learns to tell apart the objects of the demonstration scenes, one enlarged
cutout at a time, as a classifier on ImageNet does for the real task. Then whole filters are pruned
by magnitude and the rest trains on under the masks.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mmsw
from mmsw.checkpoint import load_checkpoint_file, load_pretrained, save_checkpoint_file
from mmsw.models import ShiftWiseConv2d
from mmsw.sparsity import SparsityReport, lost_zeros, magnitude_masks, masks, report, set_masks

from .config import load_config, register_toolbox
from .errors import UsageError

_SIDE = 64  # of a cutout that the network sees, in pixels
_CONTEXT = 1.3  # side of what it sees / longer side of the object
_STORED = 1.6  # side of what is kept for random views / side of what it sees
_BATCH = 64
_LEARNING_RATE = 4e-3
_ARM_SCALE = 0.1  # norm weight of the long arms at the start
_WARM_UP = 0.1  # share of the schedule
_WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Cutouts:
    """Objects and patches of background.

    Attributes:
        images: BGR, uint8, ``[n, side, side, 3]``; the object fills the middle.
        labels: int64, ``[n]``: the class of the object, the number of classes for background.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class DemoCheckpoint:
    """What a pretraining wrote.

    Attributes:
        path: The file.
        dense_accuracy: Share of held-out cutouts told right before pruning.
        pruned_accuracy: The same right after pruning.
        final_accuracy: The same at the end, as saved.
        sparsity: Densities, read back from the file.
    """

    path: Path
    dense_accuracy: float
    pruned_accuracy: float
    final_accuracy: float
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
    """Pretrain the backbone of a config on the demonstration data, prune it, and save it.

    Runs on the CPU. The same arguments give the same file on the same machine; global random states
    are left as they are.

    Args:
        data: Folder that ``tools/make_demo_data.py`` made.
        out: File to write, in this project's form; replaced if it exists.
        config: Config whose ``model.backbone`` is trained; its ``model.data_preprocessor`` says how
            images are normalised.
        sparsity: Share of the small filters to prune in every path of every layer, in ``[0, 1)``.
        seed: Of everything random; not negative.
        epochs: Passes over the cutouts, at least 2; three quarters of them before pruning.
        progress: Called with a line of text now and then.

    Returns:
        Accuracies and densities.

    Raises:
        UsageError: If an argument makes no sense, or the data are missing.
    """
    out = Path(out)
    _check_arguments(out, sparsity, seed, epochs)
    cfg = load_config(config)
    train, held_out = (read_cutouts(data, split, seed) for split in ('train', 'val'))
    num_classes = int(train.labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = _Classifier(cfg, num_classes)
        trainer = _Trainer(classifier, train, seed, epochs, progress)
        num_dense = epochs - max(1, epochs // 4)
        trainer.train(num_dense)
        dense = accuracy(classifier, held_out)
        progress(f'accuracy on held-out objects, dense: {dense:.1%}')
        set_masks(classifier.backbone, magnitude_masks(classifier.backbone, sparsity))
        pruned = accuracy(classifier, held_out)
        progress(f'accuracy right after pruning: {pruned:.1%}')
        trainer.train(epochs - num_dense)
        final = accuracy(classifier, held_out)
        progress(f'accuracy at the end{", sparse" if sparsity else ""}: {final:.1%}')
    settings = _settings(cfg)
    settings.pop('type')
    meta = {
        'mmsw_version': mmsw.__version__,
        'source': 'demonstration scenes',
        'backbone': settings,
        'sparsity': sparsity,
        'seed': seed,
        'epochs': epochs,
        'accuracy': final,
    }
    head = {f'head.{key}': value for key, value in classifier.head.state_dict().items()}
    state = {**classifier.backbone.state_dict(), **head}
    save_checkpoint_file({'meta': meta, 'state_dict': state}, out)
    with torch.random.fork_rng(devices=[]):
        sparsity_report = _read_back(cfg, out)
    return DemoCheckpoint(out, dense, pruned, final, sparsity_report)


def _read_back(cfg: Config, path: Path) -> SparsityReport:
    """Densities of a file as a training run will find it; raises if a pruned weight is not zero."""
    net = build_backbone(cfg)
    load_pretrained(net, path)
    lost = lost_zeros(load_checkpoint_file(path)['state_dict'], masks(net))
    if lost:
        raise RuntimeError(f'pruned weights are not zero in {path}: {lost}')
    return report(net)


def _check_arguments(out: Path, sparsity: float, seed: int, epochs: int) -> None:
    if not 0 <= sparsity < 1:
        raise UsageError(f'sparsity must be in [0, 1), got {sparsity}')
    if seed < 0:
        raise UsageError(f'seed must not be negative, got {seed}')
    if epochs < 2:
        raise UsageError(f'epochs must be at least 2 (one before pruning, one after), got {epochs}')
    if out.is_dir():
        raise UsageError(f'{out} is a folder; name the file to write')


def read_cutouts(data: str | os.PathLike[str], split: str, seed: int = 0) -> Cutouts:
    """Cut the annotated objects out of the scenes, and one patch of background per scene.

    Args:
        data: Folder that ``tools/make_demo_data.py`` made.
        split: ``'train'`` or ``'val'``.
        seed: Of the choice of background.

    Returns:
        Squares around the objects, enlarged to one size; classes are those of the annotations in
        ascending order of their ids.

    Raises:
        UsageError: If the data are missing.
    """
    root = Path(data) / 'coco'
    annotations = root / f'annotations/instances_{split}2017.json'
    if not annotations.is_file():
        raise UsageError(
            f'no demo data in {Path(data)}: {annotations} is missing (working folder: '
            f'{Path.cwd()}). Make them: python tools/make_demo_data.py {Path(data)}'
        )
    coco = json.loads(annotations.read_text())
    class_of = {item['id']: i for i, item in enumerate(coco['categories'])}
    objects: dict[int, list[dict]] = {image['id']: [] for image in coco['images']}
    for item in coco['annotations']:
        objects[item['image_id']].append(item)

    rng = np.random.default_rng((seed, len(coco['images'])))
    images, labels = [], []
    for image in coco['images']:
        path = root / f'{split}2017' / image['file_name']
        scene = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if scene is None:
            raise UsageError(f'{path} cannot be read; make the demo data again with --force')
        boxes = np.array([item['bbox'] for item in objects[image['id']]], float).reshape(-1, 4)
        for item, (x, y, width, height) in zip(objects[image['id']], boxes, strict=True):
            images.append(_cut(scene, x + width / 2, y + height / 2, max(width, height)))
            labels.append(class_of[item['category_id']])
        place = _empty_place(boxes, scene.shape[0], scene.shape[1], rng)
        if place is not None:
            images.append(_cut(scene, *place))
            labels.append(len(class_of))
    return Cutouts(np.stack(images), np.array(labels, np.int64))


def _cut(scene: np.ndarray, x: float, y: float, length: float) -> np.ndarray:
    """The surroundings of a centre, as wide as random views need; outside is the mean colour."""
    side = round(_SIDE * _STORED)
    scale = length * _CONTEXT / _SIDE
    start = np.array([x, y]) - 0.5 - scale * (side - 1) / 2
    matrix = np.array([[scale, 0, start[0]], [0, scale, start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    colour = scene.reshape(-1, 3).mean(0)
    return cv2.warpAffine(scene, matrix, (side, side), flags=flags, borderValue=colour.tolist())


def _empty_place(
    boxes: np.ndarray, height: int, width: int, rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Centre and side of a random square apart from all boxes ``[x, y, w, h]``; None if none is."""
    for _ in range(50):
        side = rng.uniform(0.15, 0.4) * min(height, width)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
        apart = (
            (boxes[:, 0] >= left + side)
            | (boxes[:, 0] + boxes[:, 2] <= left)
            | (boxes[:, 1] >= top + side)
            | (boxes[:, 1] + boxes[:, 3] <= top)
        )
        if apart.all():
            return left + side / 2, top + side / 2, side
    return None


def random_views(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, zoom, shift and recolour cutouts, each in its own way; never mirror them.

    Args:
        images: ``[n, 3, side, side]`` in 0..255.
        generator: Source of all random choices.

    Returns:
        ``[n, 3, 64, 64]`` in 0..255.
    """
    number = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(number, *shape, generator=generator) * (high - low) + low

    zoom = uniform(0.8, 1.3) / _STORED
    angle = torch.deg2rad(uniform(-12, 12))
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    shift = uniform(-0.12, 0.12, 2)
    matrix = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], 1)
    views = _sample(images, matrix.view(-1, 2, 3))

    order = torch.rand(number, 3, generator=generator).argsort(1)
    views = views.gather(1, order.view(-1, 3, 1, 1).expand_as(views))
    mean = views.mean((1, 2, 3), keepdim=True)
    views = mean + (views - mean) * uniform(0.6, 1.4, 1, 1, 1)
    views = views * uniform(0.8, 1.2, 3, 1, 1) + uniform(-30, 30, 1, 1, 1)
    return views.clamp(0, 255)


def plain_views(images: Tensor) -> Tensor:
    """The middle of cutouts ``[n, 3, side, side]`` as it is: ``[n, 3, 64, 64]``."""
    zoom = 1 / _STORED
    matrix = torch.tensor([[zoom, 0.0, 0.0], [0.0, zoom, 0.0]])
    return _sample(images, matrix.expand(len(images), 2, 3))


def _sample(images: Tensor, matrix: Tensor) -> Tensor:
    grid = F.affine_grid(matrix, [len(images), 3, _SIDE, _SIDE], align_corners=False)
    return F.grid_sample(images, grid, padding_mode='border', align_corners=False)


class _Classifier(nn.Module):
    """Backbone of a config, and a linear classifier on the mean of its last map."""

    def __init__(self, cfg: Config, num_classes: int) -> None:
        super().__init__()
        self.backbone = build_backbone(cfg)
        draw_small_network(self.backbone)
        self.head = nn.Linear(self.backbone.dims[-1], num_classes)
        preprocessor = cfg.model.get('data_preprocessor') or {}
        mean = torch.tensor(preprocessor.get('mean') or [0.0] * 3).view(3, 1, 1)
        std = torch.tensor(preprocessor.get('std') or [1.0] * 3).view(3, 1, 1)
        self.register_buffer('mean', mean)
        self.register_buffer('std', std)
        self.swap = bool(preprocessor.get('bgr_to_rgb'))

    def forward(self, x: Tensor) -> Tensor:
        """Cutouts, BGR ``[n, 3, side, side]`` in 0..255, to logits ``[n, classes]``."""
        x = ((x.flip(1) if self.swap else x) - self.mean) / self.std
        return self.head(self.backbone(x)[-1].mean((2, 3)))


def _settings(cfg: Config) -> dict:
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise UsageError(f'the model of {cfg.filename} has no backbone to pretrain')
    settings = backbone.to_dict()
    for key in ('init_cfg', 'pretrained'):
        settings.pop(key, None)
    return settings


def build_backbone(cfg: Config) -> nn.Module:
    """The backbone of a config as its class's constructor leaves it, with BN for SyncBN."""
    scope = register_toolbox(cfg)
    with DefaultScope.overwrite_default_scope(scope):
        return revert_sync_batchnorm(MODELS.build(copy.deepcopy(_settings(cfg))))


@torch.no_grad()
def draw_small_network(net: nn.Module) -> None:
    """Initial values with which a narrow network learns within a few hundred iterations.

    The published deviation of 0.02 is for hundreds of channels: with a few dozen the blocks start
    almost linear. And random long arms drown what is near, so they start faint.

    Args:
        net: A shift-wise network; changed in place.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
        elif isinstance(module, ShiftWiseConv2d):
            for norm in (module.norm_h, module.norm_v):
                nn.init.constant_(norm.weight, _ARM_SCALE)


class _Trainer:
    """Trains in any number of parts; the learning rate rises shortly, then falls to 0."""

    def __init__(
        self,
        classifier: _Classifier,
        data: Cutouts,
        seed: int,
        epochs: int,
        progress: Callable[[str], None],
    ) -> None:
        self.classifier = classifier
        self.images = torch.from_numpy(data.images).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(data.labels)
        self.batches = -(-len(self.labels) // _BATCH)
        self.epochs = epochs
        self.step = 0
        self.progress = progress
        self.generator = torch.Generator().manual_seed(seed)

    def train(self, epochs: int) -> None:
        """Train with a new optimizer; the momentum of an old one would move pruned weights."""
        optimizer = torch.optim.AdamW(self.classifier.parameters(), weight_decay=_WEIGHT_DECAY)
        self.classifier.train()
        for _ in range(epochs):
            total = 0.0
            order = torch.randperm(len(self.labels), generator=self.generator)
            for batch in order.tensor_split(self.batches):
                views = random_views(self.images[batch].float(), self.generator)
                loss = F.cross_entropy(self.classifier(views), self.labels[batch])
                optimizer.param_groups[0]['lr'] = self._learning_rate()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                self.step += 1
                total += loss.item()
            self.progress(
                f'epoch {self.step // self.batches}/{self.epochs}: '
                f'loss {total / self.batches:.3f}, '
                f'{report(self.classifier.backbone).total.density:.1%} of the filters'
            )

    def _learning_rate(self) -> float:
        steps = self.epochs * self.batches
        rise = min(1.0, (self.step + 1) / (_WARM_UP * steps))
        return _LEARNING_RATE * min(rise, (1 - self.step / steps) / (1 - _WARM_UP))


@torch.no_grad()
def accuracy(classifier: nn.Module, data: Cutouts) -> float:
    """Share of cutouts that a classifier of BGR images tells right, as it is in use."""
    training = classifier.training
    classifier.eval()
    right = 0
    for start in range(0, len(data.labels), _BATCH):
        images = torch.from_numpy(data.images[start : start + _BATCH]).permute(0, 3, 1, 2).float()
        labels = torch.from_numpy(data.labels[start : start + _BATCH])
        right += int((classifier(plain_views(images)).argmax(1) == labels).sum())
    classifier.train(training)
    return right / len(data.labels)
