"""What a classifier sees of a cutout: a random view while it trains, the middle otherwise."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class CutoutPreprocessor(ImgDataPreprocessor):
    """Turns batches of cutouts into normalised views of them.

    The views are drawn by a generator of their own, which starts from torch's seed. Its state is
    part of the state dict: a run that resumes sees the views that it would have seen. Processes
    that train together hold the same state, and each draws views of its own from it.

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
            generator = torch.Generator()
            generator.set_state(self.random_state.cpu())
            views = random_views(images, self.side, self.margin, self._of_rank(generator))
            draw_changes(len(images), generator)  # on by one batch, in all processes alike
            self.random_state.copy_(generator.get_state())
        else:
            views = plain_views(images, self.side, self.margin)
        return {**data, 'inputs': super().forward({'inputs': views}, training)['inputs']}

    @staticmethod
    def _of_rank(shared: torch.Generator) -> torch.Generator:
        """What this process draws its views from; in the first one the shared generator's copy."""
        own = torch.Generator()
        own.set_state(shared.get_state())
        rank = get_rank()
        if rank:
            seed = torch.randint(2**62, (), generator=own)
            own.manual_seed(int(seed) + rank)
        return own


def draw_changes(number: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw how each of ``number`` cutouts is changed, on the CPU; every value is ``[number, ...]``.

    Args:
        number: Cutouts.
        generator: Source of all random choices, on the CPU.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(number, *shape, generator=generator) * (high - low) + low

    return dict(
        zoom=uniform(0.8, 1.3),
        angle=uniform(-12, 12),  # degrees
        shift=uniform(-0.12, 0.12, 2),
        order=uniform(0, 1, 3),  # of the colours
        contrast=uniform(0.6, 1.4, 1, 1, 1),
        gain=uniform(0.8, 1.2, 3, 1, 1),
        offset=uniform(-30, 30, 1, 1, 1),
    )


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
    changes = {
        name: value.to(images.device)
        for name, value in draw_changes(len(images), generator).items()
    }
    zoom, angle = changes['zoom'] / margin, torch.deg2rad(changes['angle'])
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    shift = changes['shift']
    matrix = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], 1)
    views = _sample(images, matrix.view(-1, 2, 3), side)

    order = changes['order'].argsort(1)
    views = views.gather(1, order.view(-1, 3, 1, 1).expand_as(views))
    mean = views.mean((1, 2, 3), keepdim=True)
    views = mean + (views - mean) * changes['contrast']
    views = views * changes['gain'] + changes['offset']
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
