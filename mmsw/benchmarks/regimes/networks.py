"""The networks of the regime matrix: one per family, small enough for seconds of training."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

import mmsw.models  # noqa: F401, registers ShiftWiseNet
from mmsw.demo.classifier import DemoClassifier
from mmsw.errors import UsageError

CLASSES = 4
_IMAGES, _SIDE = 8, 32


@dataclass(frozen=True)
class Network:
    """A backbone under a linear classifier.

    Attributes:
        label: What reports call it.
        backbone: Config of the backbone, which takes ``with_cp``.
        channels: Of its last map.
        depths: How far from the output its parts lie, by a part of the names of their parameters.
        package: That has the backbone.
    """

    label: str
    backbone: Mapping[str, Any]
    channels: int
    depths: Mapping[str, int]
    package: str = 'mmsw'

    def build(self, with_cp: bool = False) -> DemoClassifier:
        """The network, with random weights that depend on torch's generator.

        Args:
            with_cp: Recompute parts in the backward pass instead of keeping their results.

        Raises:
            UsageError: If the package of the backbone is not installed.
        """
        try:
            importlib.import_module(f'{self.package}.models')
        except ImportError as error:
            raise UsageError(
                f'{self.label} is a backbone of {self.package}, which cannot be imported: {error}'
            ) from error
        return DemoClassifier({**self.backbone, 'with_cp': with_cp}, self.channels, CLASSES)


NETWORKS = MappingProxyType(
    {
        'shiftwise': Network(
            'ShiftWiseNet',
            dict(
                type='ShiftWiseNet',
                arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 16, 16]),
                big_kernels=(7, 7, 5, 3),
                out_indices=(3,),
                layer_scale_init_value=1.0,
            ),
            16,
            {'stages.3': 0, 'stages.2': 1, 'stages.1': 2, 'stages.0': 3},
        ),
        'resnet': Network(
            'ResNet-18',
            dict(
                type='mmseg.ResNet',
                depth=18,
                stem_channels=8,
                base_channels=8,
                strides=(1, 1, 2, 2),
                out_indices=(3,),
            ),
            64,
            {'layer4': 0, 'layer3': 1, 'layer2': 2, 'layer1': 3},
            'mmseg',
        ),
        'swin': Network(
            'Swin',
            dict(
                type='mmseg.SwinTransformer',
                pretrain_img_size=_SIDE,
                embed_dims=16,
                depths=(2, 2),
                num_heads=(2, 4),
                strides=(4, 2),
                out_indices=(1,),
                window_size=4,
                drop_path_rate=0.0,
            ),
            32,
            {'stages.1': 0, 'stages.0': 1},
            'mmseg',
        ),
    }
)


class RandomImages(Dataset):
    """Images ``[3, 32, 32]`` of noise with labels, the same in every process."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(_IMAGES, 3, _SIDE, _SIDE, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return dict(inputs=self.images[index], labels=torch.tensor(index % CLASSES))
