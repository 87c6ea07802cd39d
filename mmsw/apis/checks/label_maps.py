"""What label maps hold: every loader learns the classes, and some maps are looked at at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from logging import Logger
from typing import Any

import numpy as np
from torch import nn

from mmsw.component_name import names_of_bases
from mmsw.datasets import LoadValidAnnotations, MapLabelValues
from mmsw.datasets.label_maps import KnownClasses
from mmsw.datasets.label_values import IGNORED
from mmsw.wording import listed

from .built_datasets import class_names, infos, label_map_loaders, leaves, own_parts, transforms

MOST_MAPS = 24
_MOST_SECONDS = 2.0
_COMMON = 0.01  # share of the pixels from which on being ignored is no rare case
_FILLS = ('Pad', 'RandomRotate', 'RandomRotFlip', 'RandomMosaic')  # new pixels, of no class
_FEW_CLASSES = 8  # each of which is likely to be seen in the maps that are looked at
_BINARY = (
    'own_data.binary_masks=True in a config with own data, in any other '
    "dict(type='MapLabelValues', mapping={255: 1}) behind LoadAnnotations of every pipeline"
)


def tell_classes(dataset: Any, model: nn.Module, metrics: Iterable[Any] = ()) -> None:
    """Tell what loads the label maps of a data set which classes there are, and what is ignored.

    Workers that run already learn nothing any more.

    Args:
        dataset: A built data set. One that does not name its classes stays as it is, and so does
            one with code of one's own, which may give labels another meaning.
        model: Its heads and losses may ignore other labels than 255.
        metrics: They as well.
    """
    if own_parts(dataset):
        return
    parts = [*model.modules(), *metrics]
    ignored = {IGNORED, *_numbers('ignore_index', parts)}
    heads = [part for part in parts if 'BaseDecodeHead' in names_of_bases(part)]
    binary = 1 in _numbers('out_channels', heads)
    for leaf in leaves(dataset):
        names = class_names(leaf)
        for loader, table in _tables(leaf) if names else []:
            if table is not None:
                loader.label_maps.known = KnownClasses(
                    max(len(names), 2 if binary else 0),
                    frozenset(ignored | _numbers('ignore_index', [leaf])),
                    table,
                )


def _tables(dataset: Any) -> list[tuple[LoadValidAnnotations, np.ndarray | None]]:
    """What loads label maps, each with what ``MapLabelValues`` behind it makes of each label.

    That is ``None`` where it cannot be told: a wrapper may apply it now and then.
    """
    wanted = label_map_loaders(dataset)
    found = [
        pair
        for part in [dataset, *transforms(dataset)]
        for pair in _tables_in(getattr(part, 'transforms', None))
        if any(pair[0] is loader for loader in wanted)
    ]
    mappers = [item for item in transforms(dataset) if isinstance(item, MapLabelValues)]
    used = {id(item) for _, items in found for item in items}
    clear = all(id(item) in used for item in mappers)
    tables = {id(loader): _composed(items) for loader, items in found}
    same = np.arange(256, dtype=np.uint8)
    return [(item, tables.get(id(item), same) if clear else None) for item in wanted]


def _tables_in(steps: Any) -> list[tuple[LoadValidAnnotations, list[MapLabelValues]]]:
    """What loads annotations in a list of transforms, with the mappers that follow in it."""
    steps = list(steps) if isinstance(steps, (list, tuple)) else []
    return [
        (step, [item for item in steps[index:] if isinstance(item, MapLabelValues)])
        for index, step in enumerate(steps)
        if isinstance(step, LoadValidAnnotations)
    ]


def _composed(mappers: Iterable[MapLabelValues]) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for mapper in mappers:
        table = mapper.table[table]
    return table


def forget_classes(dataset: Any) -> None:
    """Let loaders take any label again, where nothing is compared with it."""
    for leaf in leaves(dataset):
        for loader in label_map_loaders(leaf):
            loader.label_maps.known = None


def look_at_order(dataset: Any, name: str, logger: Logger) -> None:
    """Warn if a mapping of 255 to a class comes behind a step that fills new pixels with 255.

    Args:
        dataset: A built data set.
        name: Of its loader, for messages.
        logger: For warnings.
    """
    for part in [dataset, *transforms(dataset), *leaves(dataset)]:
        steps, filling = getattr(part, 'transforms', None), None
        for step in steps if isinstance(steps, (list, tuple)) else []:
            kind = type(step).__name__
            if kind in _FILLS:
                filling = filling or kind
            elif filling and isinstance(step, MapLabelValues) and step.table[IGNORED] != IGNORED:
                logger.warning(
                    f'{name}: MapLabelValues maps 255 to class {step.table[IGNORED]} behind '
                    f'{filling}, which fills new pixels with 255: they are learned as that class. '
                    'Put MapLabelValues right behind LoadAnnotations'
                )
                return


def look_at_label_maps(dataset: Any, name: str, logger: Logger) -> None:
    """Load some label maps of every part, and warn if they look as if nothing could be learned.

    At most 24 maps, spread over the part, and two seconds.

    Args:
        dataset: A built data set, whose loaders know the classes.
        name: Of its loader, for messages.
        logger: For warnings.

    Raises:
        DataError: If a map cannot be loaded, or holds what is no class.
    """
    for leaf in leaves(dataset):
        loaders = label_map_loaders(leaf)
        if not loaders or loaders[0].label_maps.known is None:
            continue
        loader, known = loaders[0], loaders[0].label_maps.known
        loaded, maps, chosen = np.zeros(256, dtype=np.int64), 0, False
        start = time.monotonic()
        for info in infos(leaf, MOST_MAPS):
            loaded += np.bincount(loader.classes_of(info).ravel(), minlength=256)
            maps += 1
            chosen = chosen or bool(info.get('label_map'))  # some classes of many
            if time.monotonic() - start > _MOST_SECONDS:
                break
        problem = problem_of_labels(loaded, class_names(leaf), known, chosen) if maps else None
        if problem:
            logger.warning(f'{name}: in the {maps} of {len(leaf)} label maps looked at, {problem}')


def problem_of_labels(
    loaded: np.ndarray, names: list | tuple, known: KnownClasses, chosen: bool
) -> str | None:
    counts = np.bincount(known.table, weights=loaded, minlength=256)
    ignored = sorted(label for label in known.ignored if 0 <= label <= IGNORED)
    share = counts[ignored].sum() / counts.sum()
    labels = ' and '.join(map(str, ignored))
    if share == 1:
        return (
            f'every pixel is ignored (label {labels}), so nothing can be learned or measured: look '
            'at reduce_zero_label, and save the index of its class for every pixel. Masks drawn '
            f'with 0 and 255 need reduce_zero_label=False and {_BINARY}'
        )
    meant = int(known.table[IGNORED])
    if meant != IGNORED and loaded[IGNORED] and loaded[meant]:
        return (
            f'255 is mapped to class {meant}, which other pixels have as {meant}. If 255 means '
            'pixels without a class, leave that mapping out (own_data.binary_masks=False)'
        )
    labelled = enumerate(names[:IGNORED])
    absent = [name for label, name in labelled if not counts[label] and label not in ignored]
    seen = len(names) - len(absent)
    if chosen or not absent or share < _COMMON or (len(names) > _FEW_CLASSES and seen > 1):
        return None
    cure = 'If these are meant to be of a class, save its index in their place'
    if set(np.flatnonzero(loaded)) == {0, IGNORED}:
        cure = f'Masks drawn with 0 and 255 need {_BINARY}'
    return (
        f'no pixel is of class {listed(absent)}, and {share:.0%} of the pixels are ignored (label '
        f'{labels}). {cure}'
    )


def _numbers(key: str, parts: Iterable[Any]) -> set[int]:
    found = (getattr(part, key, None) for part in parts)
    return {item for item in found if isinstance(item, int)}
