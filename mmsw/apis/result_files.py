"""One file per tested image: label maps, and where pictures go."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmsw.errors import DataError, UsageError
from mmsw.registration import register
from mmsw.whole_file import write_whole
from mmsw.wording import short

from .checks.built_datasets import infos, leaves


@register(HOOKS)
class ResultFilesHook(Hook):
    """Writes the label map of every tested image, and sorts the pictures that are drawn.

    Files have the names of the images. Where images in several folders have the same name, the
    folders are kept, below the one that all images have in common.

    Args:
        label_maps: Folder for label maps (PNG, numbers as in the annotations), or ``None``.
    """

    def __init__(self, label_maps: str | None = None) -> None:
        self.label_maps = label_maps
        self._names: dict[str, str] = {}

    def before_test(self, runner: Runner) -> None:
        """Find a name for every image."""
        paths = list(_image_paths(runner.test_loop.dataloader.dataset))
        self._names = label_map_names(paths)
        folders = picture_folders(paths)
        for hook in runner.hooks:
            if hasattr(hook, '_visualizer'):
                _sort_pictures(hook, folders)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Write the label maps of a batch."""
        for output in (outputs or ()) if self.label_maps else ():
            if 'pred_sem_seg' not in output:
                raise UsageError(
                    f'{type(runner.model).__name__} predicts no classes of pixels, so there are no '
                    'label maps to write (--out)'
                )
            name = self._names.get(output.img_path) or f'{Path(output.img_path).stem}.png'
            labels = output.pred_sem_seg.data.squeeze(0).cpu().numpy()
            labels = labels + int(bool(output.get('reduce_zero_label', False)))
            labels = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)
            write_whole(
                Path(self.label_maps, name),
                lambda path, labels=labels: cv2.imwrite(str(path), labels),
            )


def label_map_names(paths: Iterable[str]) -> dict[str, str]:
    """A name below one folder for the label map of each image.

    Args:
        paths: Of the images.

    Returns:
        Path -> ``'0.png'``; with folders where these names are not enough (``'a/0.png'``), and with
        the suffix of the image where these are not enough either (``'0.jpg.png'``).
    """
    paths = list(dict.fromkeys(paths))
    common = _common_folder(paths)
    inside = [os.path.relpath(path, common) for path in paths]
    for names in (
        [f'{Path(path).stem}.png' for path in inside],
        [str(Path(path).with_suffix('.png')) for path in inside],
    ):
        if len(set(names)) == len(paths):
            return dict(zip(paths, names, strict=True))
    return {path: f'{name}.png' for path, name in zip(paths, inside, strict=True)}


def picture_folders(paths: Iterable[str]) -> dict[str, str]:
    """The folder for the picture of each image, below one folder.

    Args:
        paths: Of the images.

    Returns:
        Path -> ``''`` where all images have names of their own, or else the folder that it lies in.
    """
    paths = list(dict.fromkeys(paths))
    common = _common_folder(paths)
    counts = Counter(os.path.basename(path) for path in paths)
    if all(count == 1 for count in counts.values()):
        return dict.fromkeys(paths, '')
    return {path: os.path.relpath(os.path.dirname(path), common) for path in paths}


def _common_folder(paths: Sequence[str]) -> str:
    folders = {os.path.dirname(path) for path in paths}
    try:
        return os.path.commonpath(folders)
    except ValueError:  # no image, several drives, or absolute paths beside relative ones
        return '/'


def _image_paths(dataset: Any) -> Iterator[str]:
    for leaf in leaves(dataset):
        for info in infos(leaf):
            if isinstance(info.get('img_path'), str):
                yield info['img_path']


def _sort_pictures(hook: Hook, folders: dict[str, str]) -> None:
    """Let a toolbox's hook draw every image into its own folder, one after the other.

    Raises:
        DataError: In a test, if it cannot draw an image; names the file.
    """
    draw = hook.after_test_iter

    def after_test_iter(
        runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        for output in outputs or ():
            try:
                with _below(hook, runner, folders.get(output.img_path, '')):
                    draw(runner, batch_idx=batch_idx, data_batch=data_batch, outputs=[output])
            except Exception as error:  # it reads the image, whatever loader the config has
                raise DataError(
                    f'image file {output.img_path} cannot be drawn by {type(hook).__name__} '
                    f'({short(error)}): leave --show-dir out. tools/predict.py reads images as '
                    'the config says'
                ) from error

    hook.after_test_iter = after_test_iter


@contextmanager
def _below(hook: Hook, runner: Runner, folder: str) -> Iterator[None]:
    """Inside, what a hook of mmseg, mmdet or mmpretrain draws goes into a folder of its folder."""
    backends = list(getattr(hook._visualizer, '_vis_backends', {}).values())
    places = [(hook, 'test_out_dir'), (hook, 'out_dir')]
    places += [(backend, '_img_save_dir') for backend in backends]
    before = [(owner, key, getattr(owner, key, None)) for owner, key in places]
    for owner, key, value in before:
        if isinstance(value, str):
            setattr(owner, key, os.path.join(value, folder))
    try:
        yield
    finally:
        for owner, key, value in before:
            if isinstance(value, str):
                setattr(owner, key, value)
