"""Small models of both toolboxes with random weights, and what stands for their exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lively_weights import randomise
from torch import Tensor, nn

from mmsw.apis import ExportedModel, init_model
from mmsw.apis.export.image_rule import image_rule_of
from mmsw.deploy.export.eager import EagerProgram
from mmsw.deploy.export.image_rule import ImageRule
from mmsw.deploy.export.metadata import ExportMetadata

ROOT = Path(__file__).resolve().parents[2]
SEGMENTOR = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'
DETECTOR = ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py'
WHOLE = {'model.test_cfg.mode': 'whole'}
PIPELINE = 'test_dataloader.dataset.pipeline'


def model_of(config: Path, options: dict[str, Any] | None = None) -> nn.Module:
    """A model with random weights that give different results for different images."""
    torch.manual_seed(0)
    model = init_model(config, cfg_options=options)
    randomise(model)
    return model


def save(model: nn.Module, path: Path) -> Path:
    """A checkpoint of a model."""
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth image of random colours, uint8."""
    coarse = np.random.randint(0, 256, (6, 9, channels), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(
        height, width, channels
    )


def write_pictures(folder: Path, *sizes: tuple[int, int]) -> Path:
    """A folder of images of some sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        content = cv2.imencode('.png', picture(*size))[1].tobytes()
        (folder / f'{index}.png').write_bytes(content)
    return folder


class _Logits(nn.Module):
    """A segmentor up to its logits, by its own method."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.encode_decode(image, [dict(img_shape=image.shape[2:])] * len(image))


def stand_in(model: nn.Module, rule: ImageRule | None = None) -> ExportedModel:
    """What the exported file of a segmentor must give, computed by the segmentor itself."""
    test = model.test_cfg
    settings = dict(mode=test.mode, align_corners=model.align_corners)
    if test.mode == 'slide':
        settings |= dict(crop_size=list(test.crop_size), stride=list(test.stride))
    if model.out_channels == 1:
        settings['threshold'] = model.decode_head.threshold
    meta = model.dataset_meta
    metadata = ExportMetadata(
        task='segmentation',
        classes=meta['classes'],
        palette=tuple(meta['palette']),
        image=rule or image_rule_of(model),
        settings=settings,
        outputs=('logits',),
    )
    return ExportedModel(EagerProgram(_Logits(model), metadata))
