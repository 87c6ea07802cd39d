"""What a classifier sees of a cutout: a random view while it trains, the middle otherwise."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor

from mmsw.registration import register


@register(MODELS)
class DemoCutoutPreprocessor(ImgDataPreprocessor):
    """Turns batches of cutouts into normalised views of them.

    The views are drawn by a generator of their own, which starts from torch's seed. Its state is
    part of the state dict: a run that resumes sees the views that it would have seen. Several
    processes have the same state, and each draws views of its own from it.

    Args:
        side: Of a view, in pixels.
        margin: Side of a cutout over that of the part in its middle that is seen.
        kwargs: As for mmengine's ``ImgDataPreprocessor``: mean, std, bgr_to_rgb, ...
    """

    random_state: Tensor

    def __init__(self, side: int, margin: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side = side
        self.margin = margin
        generator = torch.Generator().manual_seed(torch.initial_seed())
        self.register_buffer('random_state', generator.get_state())

    def forward(self, data: dict, training: bool = False) -> dict:
        """As that of mmengine's preprocessor.

        Args:
            data: ``inputs``, uint8 ``[n, 3, s, s]``, and what is passed on.
            training: Whether views are random.

        Returns:
            ``data`` with views ``[n, 3, side, side]`` instead of cutouts.
        """
        data = self.cast_data(data)
        images = data['inputs'].float()
        if training:
            views = self._random_views(images)
        else:
            views = plain_views(images, self.side, self.margin)
        return {**data, 'inputs': super().forward({'inputs': views}, training)['inputs']}

    def _random_views(self, images: Tensor) -> Tensor:
        generator = self._generator()
        rank = get_rank()
        if rank == 0:
            views = random_views(images, self.side, self.margin, generator)
        else:
            seed = int(torch.randint(1 << 62, (), generator=self._generator())) + rank
            own = torch.Generator().manual_seed(seed)
            views = random_views(images, self.side, self.margin, own)
            # The state goes on as that of the first process, which is the one that is saved.
            random_views(images[..., :1, :1], 1, self.margin, generator)
        self.random_state.copy_(generator.get_state())
        return views

    def _generator(self) -> torch.Generator:
        generator = torch.Generator()
        generator.set_state(self.random_state.cpu())
        return generator


def random_views(images: Tensor, side: int, margin: float, generator: torch.Generator) -> Tensor:
    """Turn, zoom, shift and recolour cutouts, each in its own way; never mirror them.

    Args:
        images: ``[n, 3, s, s]`` in 0..255.
        side: Of the views, in pixels.
        margin: Side of a cutout over that of the part in its middle that is seen.
        generator: Source of all random choices, on the CPU.

    Returns:
        ``[n, 3, side, side]`` in 0..255.
    """
    number = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(number, *shape, generator=generator).to(images.device)
        return drawn * (high - low) + low

    zoom = uniform(0.8, 1.3) / margin
    angle = torch.deg2rad(uniform(-12, 12))
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    shift = uniform(-0.12, 0.12, 2)
    matrix = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], 1)
    views = _sample(images, matrix.view(-1, 2, 3), side)

    order = uniform(0, 1, 3).argsort(1)
    views = views.gather(1, order.view(-1, 3, 1, 1).expand_as(views))
    mean = views.mean((1, 2, 3), keepdim=True)
    views = mean + (views - mean) * uniform(0.6, 1.4, 1, 1, 1)
    views = views * uniform(0.8, 1.2, 3, 1, 1) + uniform(-30, 30, 1, 1, 1)
    return views.clamp(0, 255)


def plain_views(images: Tensor, side: int, margin: float) -> Tensor:
    """The middle of cutouts as it is.

    Args:
        images: ``[n, 3, s, s]``.
        side: Of the views, in pixels.
        margin: Side of a cutout over that of the part in its middle that is seen.

    Returns:
        ``[n, 3, side, side]``.
    """
    zoom = 1 / margin
    matrix = torch.tensor([[zoom, 0.0, 0.0], [0.0, zoom, 0.0]], device=images.device)
    return _sample(images, matrix.expand(len(images), 2, 3), side)


def _sample(images: Tensor, matrix: Tensor, side: int) -> Tensor:
    grid = F.affine_grid(matrix, [len(images), 3, side, side], align_corners=False)
    return F.grid_sample(images, grid, padding_mode='border', align_corners=False)
