"""An exported file as a model: images in, data samples of the toolboxes out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmsw.deploy.export.input_tensor import program_input
from mmsw.deploy.export.runtimes import ExportedProgram, open_program
from mmsw.deploy.export.sliding import slide

from ..image_way import prepare_image
from ..images import Image
from ..inference import inference
from .finishing import add_classes, add_objects
from .rule_steps import way_of


def load_exported(path: str | os.PathLike[str], threads: int | None = None) -> ExportedModel:
    """Open a file that :func:`mmsw.apis.export_model` wrote; no config and no checkpoint is needed.

    It runs on the CPU: ``.onnx`` in onnxruntime, ``.xml`` in OpenVINO, ``.pt2`` in torch. A
    ``.pt2`` file is code by nature: open only files of people whom you trust.

    Args:
        path: The file.
        threads: How many threads compute; ``None`` for as many as torch has.

    Returns:
        What takes images and gives their results, ``load_exported(path)('street.jpg')``; see
        :class:`ExportedModel`.

    Raises:
        UsageError: If the file is not there, or what runs it is not installed.
        mmsw.errors.DataError: If it is damaged, or no file of mmsw.
    """
    return ExportedModel(open_program(path, threads))


class ExportedModel(nn.Module):
    """An exported program that takes what :func:`mmsw.apis.inference` takes and gives the same.

    It stands where a model of :func:`mmsw.apis.init_model` does: :func:`mmsw.apis.inference`,
    :func:`mmsw.apis.predict_files` and the test loops of mmengine take it. It has no parameters.

    Args:
        program: What runs; a file that is open.

    Attributes:
        metadata: What the file tells of itself.
        dataset_meta: ``classes`` and ``palette``.
        image_way: How images come to the program.
        window_settings: For windows of large images, see :mod:`mmsw.apis.window_settings`.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program, self.metadata = program, program.metadata
        self.dataset_meta = self.metadata.dataset_meta
        self.image_way = way_of(self.metadata.image, self.metadata.scope)
        self.window_settings = self._window_settings()
        self.eval()

    def forward(
        self,
        images: Image | list[Image] | tuple[Image, ...],
        *,
        keep_logits: bool = False,
        batch_size: int = 1,
    ) -> BaseDataElement | list[BaseDataElement]:
        """Segment images, or detect objects in them; as :func:`mmsw.apis.inference`."""
        return inference(self, images, keep_logits=keep_logits, batch_size=batch_size)

    def test_step(self, data: dict[str, Sequence[Any]]) -> list[BaseDataElement]:
        """Results of images that are prepared, as models of the toolboxes give them.

        Args:
            data: ``inputs``, ``[C, H, W]`` each, and ``data_samples``, which get the results.
        """
        images, samples = list(data['inputs']), list(data['data_samples'])
        number = len(images) if self.metadata.batched else 1
        for first in range(0, len(images), number):
            part = slice(first, first + number)
            self._predict(images[part], samples[part])
        return samples

    def inputs(self, images: Iterable[Image]) -> Iterator[np.ndarray]:
        """Images as the program takes them: ``[1, C, H, W]``, one crop where the model slides."""
        crop = self.metadata.settings.get('crop_size', (None, None))
        for place, image in enumerate(images):
            packed = prepare_image(self, image, place).packed
            x = program_input([packed['inputs']], self.metadata.image)
            yield np.ascontiguousarray(x[:, :, : crop[0], : crop[1]].numpy())

    def raw(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Outputs of the program for prepared images of one size; sliding where the model slides.

        Args:
            images: ``[C, H, W]`` each.
        """
        x, settings = program_input(images, self.metadata.image), self.metadata.settings
        if settings.get('mode') != 'slide':
            return self._run(x)
        logits = slide(
            lambda crop: self._run(crop)['logits'],
            x,
            tuple(settings['crop_size']),
            tuple(settings['stride']),
        )
        return {'logits': logits}

    def _window_settings(self) -> dict[str, Any]:
        known = ('threshold', 'iou_threshold')
        settings = self.metadata.settings
        return {name: settings[name] for name in known if name in settings}

    def _predict(self, images: Sequence[Tensor], samples: Sequence[BaseDataElement]) -> None:
        found, size = self.raw(images), tuple(images[0].shape[1:])
        if self.metadata.task == 'detection':
            add_objects(samples[0], found, size, self.metadata.settings)
            return
        for sample, logits in zip(samples, found['logits'], strict=True):
            add_classes(sample, logits, size, self.metadata.settings)

    def _run(self, image: Tensor) -> dict[str, Tensor]:
        found = self.program.run(image.numpy())
        return {name: torch.from_numpy(_owned(value)) for name, value in found.items()}

    def extra_repr(self) -> str:
        meta = self.metadata
        return f'{self.program.path}: {meta.task} of {len(meta.classes)} classes, {meta.precision}'


def _owned(value: np.ndarray) -> np.ndarray:
    return value if value.flags.writeable else value.copy()
