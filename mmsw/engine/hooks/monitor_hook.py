"""What a run shows beside its losses: density per stage, exchanges of filters, a few pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from torch import Tensor

from mmsw import sparsity
from mmsw.registration import register
from mmsw.wording import short

from ..image_channels import swaps_channels
from ..model_wrapper import unwrapped

_LONGEST_SIDE = 1024  # pixels of a picture, truth and prediction side by side


@register(HOOKS)
class MonitorHook(Hook):
    """Sends density, exchanges and pictures to the backends of the visualizer.

    ``tools/train.py --tensorboard`` and ``--wandb`` add it. Names:

    - ``sparsity/density_stage0`` and so on, ``sparsity/density_all``: share of the small filters
      that is kept, at the start, at each exchange of filters and at each validation;
    - ``sparsity/pruned_weights``, ``sparsity/grown_weights``: in each exchange of
      ``DynamicSparsityHook``; ``sparsity/exchanged``: grown over kept weights;
    - ``test/...``: scores of a test, which mmengine sends nowhere;
    - ``pictures/0_NAME`` and so on: the first images of validation or test, truth beside
      prediction, for the toolboxes that can draw them (mmseg, mmdet). They go to every backend but
      ``LocalVisBackend``.

    Args:
        num_pictures: Images to draw in each validation, and in a test; 0 for none.
    """

    priority = 'VERY_LOW'

    def __init__(self, num_pictures: int = 4) -> None:
        if not isinstance(num_pictures, int) or num_pictures < 0:
            raise ValueError(f'num_pictures must be a whole number from 0, got {num_pictures!r}')
        self.num_pictures = num_pictures
        self._drawn = 0
        self._shown: Any = None  # the last exchange that was sent

    def before_train(self, runner: Runner) -> None:
        """Send the density that the run begins with."""
        self._send_density(runner, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Send what was exchanged in this iteration."""
        for hook in runner.hooks:
            exchange = getattr(hook, 'last_exchange', None)
            if exchange is not None and exchange is not self._shown:
                self._shown = exchange
                _send(runner, exchange, runner.iter + 1)
                self._send_density(runner, runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin with the first image again."""
        self._drawn = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin with the first image."""
        self._drawn = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw the first images."""
        self._draw(runner, data_batch, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw the first images."""
        self._draw(runner, data_batch, outputs)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Send the density beside the scores."""
        self._send_density(runner, runner.iter)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Send the scores of a test."""
        scores = {
            f'test/{name}': float(value)
            for name, value in (metrics or {}).items()
            if isinstance(value, (int, float, np.number))
        }
        _send(runner, scores, runner.iter)

    def _send_density(self, runner: Runner, step: int) -> None:
        report = sparsity.report(unwrapped(runner.model))
        if not report.total.total:
            return
        scalars = {
            f'sparsity/density_stage{stage}'
            if stage >= 0
            else 'sparsity/density_elsewhere': density
            for stage, density in sorted(report.stages.items())
        }
        scalars['sparsity/density_all'] = report.total
        _send(runner, {name: density.density for name, density in scalars.items()}, step)

    def _draw(self, runner: Runner, data_batch: Any, outputs: Sequence[Any] | None) -> None:
        visualizer = runner.visualizer
        if not (is_main_process() and hasattr(visualizer, 'add_datasample')):
            return
        inputs = data_batch.get('inputs') if isinstance(data_batch, Mapping) else None
        for index, sample in enumerate(outputs or ()):
            if self._drawn >= self.num_pictures:
                return
            try:
                image = _picture(inputs[index], sample.ori_shape, unwrapped(runner.model))
                name = f'pictures/{self._drawn}_{sample.get("img_path", "image").split("/")[-1]}'
                with _small_pictures(visualizer):
                    visualizer.add_datasample(name, image, data_sample=sample, step=runner.iter)
            except Exception as error:  # of samples of another kind; no reason to end a training
                runner.logger.warning(
                    f'no pictures are logged, since an image cannot be drawn ({short(error)}). '
                    'MonitorHook with num_pictures=0 does not try'
                )
                self.num_pictures = 0
                return
            self._drawn += 1


def _send(runner: Runner, scalars: dict[str, float], step: int) -> None:
    if scalars:
        runner.visualizer.add_scalars({**scalars, 'iter': step}, step=step)


def _picture(tensor: Tensor, size: Sequence[int], model: Any) -> np.ndarray:
    """An input of the model as an RGB picture of the size of the file.

    Args:
        tensor: ``[C, H, W]`` as the pipeline gives it.
        size: Height and width of the file.
        model: Says whether its inputs are in the order BGR.

    Returns:
        ``[height, width, 3]``, uint8.
    """
    image = tensor.detach().cpu().permute(1, 2, 0).numpy()
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    if swaps_channels(getattr(model, 'data_preprocessor', None)):
        image = image[..., ::-1]
    return np.ascontiguousarray(cv2.resize(np.ascontiguousarray(image), (size[1], size[0])))


@contextmanager
def _small_pictures(visualizer: Any) -> Iterator[None]:
    """Inside, pictures go small to every backend but that of the work folder."""
    before = visualizer._vis_backends
    kept = {
        name: _Small(backend)
        for name, backend in before.items()
        if not isinstance(backend, LocalVisBackend)
    }
    visualizer._vis_backends = kept
    try:
        with torch.no_grad():
            yield
    finally:
        visualizer._vis_backends = before


class _Small:
    """A backend for pictures that are not larger than one can see."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        factor = _LONGEST_SIDE / max(image.shape[:2])
        if factor < 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        self._backend.add_image(name, image, step=step, **kwargs)
