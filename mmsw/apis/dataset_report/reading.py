"""Reading samples as the loaders of a config do, before anything is changed at random."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmsw.datasets.label_maps import KnownClasses
from mmsw.errors import DataError
from mmsw.wording import short

from ..checks.built_datasets import label_map_loaders, of_others

_AFTER_LOADING = ('MapLabelValues',)


@dataclass
class Sample:
    """One image with its truth.

    Attributes:
        info: What the data set knows of it.
        results: What the loading steps made of that; empty if they failed.
        loaded: Labels ``[H, W]`` as ``LoadAnnotations`` gives them; ``None`` if there are none.
        error: Why it cannot be loaded.
    """

    info: dict
    results: dict = field(default_factory=dict)
    loaded: np.ndarray | None = None
    error: str | None = None

    @property
    def image(self) -> np.ndarray | None:
        """``[H, W, C]`` or ``[H, W]``."""
        image = self.results.get('img')
        return image if isinstance(image, np.ndarray) and image.ndim in (2, 3) else None

    @property
    def labels(self) -> np.ndarray | None:
        """Class of every pixel, ``[H, W]``."""
        return _map_of(self.results)


class SampleReader:
    """Reads the samples of a data set that has no parts.

    Only the steps of its pipeline that load are used, those that give labels another meaning, and
    what other people wrote, up to the first step that changes an image.

    Args:
        dataset: A built data set of mmengine, whose loaders may know the classes.

    Attributes:
        known: What its label maps may hold; ``None`` where that cannot be told.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.steps = loading_steps(dataset)
        self.label_loaders = label_map_loaders(dataset)
        self.known: KnownClasses | None = next(
            (item.label_maps.known for item in self.label_loaders), None
        )

    @property
    def reads_labels(self) -> bool:
        """Whether label maps of mmsegmentation are among what is loaded."""
        return bool(self.label_loaders)

    def read(self, index: int) -> Sample:
        """Read one sample; labels that are no class are kept.

        Args:
            index: In the data set.
        """
        info = self.dataset.get_data_info(index)
        sample, results = Sample(info), dict(info)
        with self._any_label():
            for step in self.steps:
                try:
                    results = step(results)
                except DataError as error:
                    sample.error = str(error)
                    return sample
                except Exception as error:  # steps of others fail in their own ways
                    if not _loads(step):  # it may need what was left out before it
                        continue
                    sample.error = f'{_named(info)} cannot be loaded ({short(error)})'
                    return sample
                if results is None:
                    sample.error = f'{_named(info)} is skipped by {type(step).__name__}'
                    return sample
                if sample.loaded is None:
                    sample.loaded = _map_of(results)
        sample.results = results
        return sample

    def explain_labels(self, info: dict) -> str | None:
        """What the loader says in a run of labels that are no class; ``None`` if nothing."""
        for loader in self.label_loaders:
            try:
                loader.classes_of(dict(info))
            except DataError as error:
                return str(error)
        return None

    @contextmanager
    def _any_label(self) -> Iterator[None]:
        kept = [(item.label_maps, item.label_maps.known) for item in self.label_loaders]
        for reader, _ in kept:
            reader.known = None
        try:
            yield
        finally:
            for reader, known in kept:
                reader.known = known


def loading_steps(dataset: Any) -> list[Any]:
    """The steps of a pipeline that load, see :class:`SampleReader`."""
    steps = list(getattr(getattr(dataset, 'pipeline', None), 'transforms', ()))
    loads = [index for index, step in enumerate(steps) if _loads(step)]
    found, last = [], loads[-1] if loads else -1
    for index, step in enumerate(steps):
        if _loads(step) or type(step).__name__ in _AFTER_LOADING or of_others([type(step)]):
            found.append(step)
        elif index > last:
            break
    return found if loads else []


def _loads(step: Any) -> bool:
    return type(step).__name__.startswith('Load')


def _map_of(results: dict) -> np.ndarray | None:
    labels = results.get('gt_seg_map')
    fits = isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.dtype.kind in 'iub'
    return labels if fits else None


def _named(info: dict) -> str:
    return f'image {info.get("img_path", "without a path")}'
