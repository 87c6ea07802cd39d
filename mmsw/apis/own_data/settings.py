"""Reading ``own_data`` of a config, and saying what is wrong with it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mmsw.errors import UsageError

SPLITS = ('train', 'val', 'test')
TASKS = ('segmentation', 'detection')
_KEYS = {
    'task': TASKS,
    'data_root': TASKS,
    **dict.fromkeys(SPLITS, TASKS),
    'classes': TASKS,
    'palette': TASKS,
    'batch_size': TASKS,
    'max_iters': TASKS,
    'passes': TASKS,
    'iterations': TASKS,
    'learning_rate': TASKS,
    'scale_range': TASKS,
    'flip': TASKS,
    'image_suffix': TASKS[:1],
    'label_suffix': TASKS[:1],
    'ignore': TASKS[:1],
    'binary_masks': TASKS[:1],
    'reduce_zero_label': TASKS[:1],
    'crop_size': TASKS[:1],
    'image_scale': TASKS[:1],
    'masks': TASKS[1:],
    'image_size': TASKS[1:],
}
_REQUIRED = ('task', 'data_root', 'train', 'val')
_SPLIT_KEYS = {
    'segmentation': ('images', 'labels', 'list'),
    'detection': ('images', 'annotations'),
}
_TRUTH = {'segmentation': 'labels', 'detection': 'annotations'}
_SWITCHES = ('flip', 'binary_masks', 'reduce_zero_label', 'masks')


@dataclasses.dataclass(frozen=True)
class OwnData:
    """``own_data`` of a config, checked.

    Attributes:
        task: ``'segmentation'`` or ``'detection'``.
        data_root: Folder that all others lie in.
        splits: ``'train'``, ``'val'``, ``'test'`` -> folders and files below ``data_root``. There
            is no ``'val'`` where a share of the training images is held out.
        held_out: That share; 0 if the validation images are named.
        classes: Names, or the path of a text file, or ``None``.
        palette: RGB triples, or ``None``.
        batch_size: Images per step and process.
        max_iters: Iterations of training, or ``None``.
        passes: How often each training image is seen where ``max_iters`` is ``None``.
        iterations: The fewest and the most then.
        learning_rate: For 16 images per step.
        scale_range: Factors between which training images are enlarged.
        flip: Whether images may be mirrored.
        size: Height and width: of crops (segmentation), or what images are fitted into (detection).
        image_suffix: How names of images end.
        label_suffix: How names of label maps end.
        ignore: Label values of the files that are no class.
        binary_masks: Whether 255 is the second class.
        reduce_zero_label: Whether label 1 is the first class, and 0 none.
        image_scale: Long and short side that images are resized to; ``None`` for their own size.
        masks: Whether objects have masks.
    """

    task: str
    data_root: str
    splits: dict[str, dict[str, str]]
    held_out: float
    classes: Any
    palette: Any
    batch_size: int
    max_iters: int | None
    passes: float
    iterations: tuple[int, int]
    learning_rate: float
    scale_range: tuple[float, float]
    flip: bool
    size: tuple[int, int]
    image_suffix: tuple[str, ...]
    label_suffix: str
    ignore: tuple[int, ...]
    binary_masks: bool
    reduce_zero_label: bool
    image_scale: tuple[int, int] | None
    masks: bool

    def path(self, split: str, key: str) -> str:
        """A folder or file of a split with the data root before it."""
        return os.path.join(self.data_root, self.splits[split][key])


def read_settings(given: Any) -> OwnData:
    """Check ``own_data``.

    Args:
        given: The dict of a config. What it may hold is written in
            ``configs/_base_/datasets/own_segmentation.py`` and ``own_coco.py``.

    Returns:
        Its content. No file has been looked for.

    Raises:
        UsageError: If a key is unknown or lacking, or a value is of another kind.
    """
    if not isinstance(given, dict):
        raise UsageError(f'own_data is {given!r}, expected a dict')
    given = {key: _plain(value) for key, value in given.items()}
    task = given.get('task')
    if task not in TASKS:
        raise UsageError(f'own_data.task is {task!r}, expected one of {list(TASKS)}')
    known = [key for key, tasks in _KEYS.items() if task in tasks]
    _check_keys('own_data', given, known)
    lacking = [key for key in _REQUIRED if given.get(key) in (None, '')]
    if lacking == ['val']:
        raise UsageError(
            'own_data.val is empty: name the validation images, or hold out a share of the '
            'training images, for instance own_data.val=0.2'
        )
    if lacking:
        raise UsageError(f'own_data lacks {", ".join(lacking)}')
    if not isinstance(given['data_root'], (str, os.PathLike)):
        raise UsageError(f'own_data.data_root is {given["data_root"]!r}, expected a folder')
    for key in _SWITCHES:
        if not isinstance(given.get(key, False), bool):
            raise UsageError(f'own_data.{key} is {given[key]!r}, expected True or False')
    segmentation = task == 'segmentation'
    splits, held_out = _splits(given, task)
    return OwnData(
        task=task,
        data_root=os.path.expanduser(os.fspath(given['data_root'])),
        splits=splits,
        held_out=held_out,
        classes=given.get('classes'),
        palette=given.get('palette'),
        batch_size=_count(given, 'batch_size', 4),
        max_iters=None if given.get('max_iters') is None else _count(given, 'max_iters', 1),
        passes=_positive(given, 'passes', 100),
        iterations=_bounds(given),
        learning_rate=_positive(given, 'learning_rate', 1e-4),
        scale_range=_factors(given),
        flip=given.get('flip', True),
        size=_size(given, 'crop_size', 512) if segmentation else _size(given, 'image_size', 640),
        image_suffix=_suffixes(given),
        label_suffix=_text(given, 'label_suffix', '.png'),
        ignore=_ignored(given),
        binary_masks=given.get('binary_masks', False),
        reduce_zero_label=given.get('reduce_zero_label', False),
        image_scale=_scale(given),
        masks=given.get('masks', not segmentation),
    )


def _plain(value: Any) -> Any:
    """Without the types of mmengine."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value


def _check_keys(where: str, given: dict, known: Collection[str]) -> None:
    for key in given:
        if key in known:
            continue
        near = get_close_matches(str(key), known, 1)
        meant = f'did you mean {near[0]}?' if near else f'it may hold {", ".join(known)}'
        if key in _KEYS and where == 'own_data':
            other = _KEYS[key][0]
            meant = f'that is for {other}' + (
                ', take image_size' if key == 'crop_size' and 'image_size' in known else ''
            )
        raise UsageError(f'{where} has no {key!r}: {meant}')


def _splits(given: dict, task: str) -> tuple[dict[str, dict[str, str]], float]:
    splits: dict[str, dict[str, str]] = {}
    held_out = 0.0
    truth = _TRUTH[task]
    for name in SPLITS:
        value = given.get(name)
        if name == 'val' and isinstance(value, (int, float)) and not isinstance(value, bool):
            if not 0 < value < 1:
                raise UsageError(
                    f'own_data.val is {value}, expected a share of the training images between 0 '
                    'and 1, for instance 0.2'
                )
            held_out = float(value)
            continue
        if name == 'test' and value is None:
            continue
        if not isinstance(value, dict):
            raise UsageError(
                f'own_data.{name} is {value!r}, expected dict(images=..., {truth}=...)'
            )
        _check_keys(f'own_data.{name}', value, _SPLIT_KEYS[task])
        found = {key: item for key, item in value.items() if item is not None}
        needed = ['images', truth]
        if name == 'test' and task == 'segmentation':
            needed = ['images']
        lacking = [key for key in needed if key not in found]
        if lacking:
            hint = ''
            if name == 'test':
                hint = (
                    ': a detector is tested with a JSON file that lists images and categories; for '
                    'a folder of pictures there is tools/predict.py'
                )
            raise UsageError(f'own_data.{name} lacks {" and ".join(lacking)}{hint}')
        for key, item in found.items():
            if not isinstance(item, (str, os.PathLike)):
                raise UsageError(f'own_data.{name}.{key} is {item!r}, expected a path')
        splits[name] = {key: os.fspath(item) for key, item in found.items()}
    return splits, held_out


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _count(given: dict, key: str, default: int) -> int:
    value = given.get(key, default)
    if not (_is_number(value) and value >= 1 and value == int(value)):
        raise UsageError(f'own_data.{key} is {value!r}, expected a whole number of at least 1')
    return int(value)


def _positive(given: dict, key: str, default: float) -> float:
    value = given.get(key, default)
    if not (_is_number(value) and value > 0):
        raise UsageError(f'own_data.{key} is {value!r}, expected a number above 0')
    return value


def _text(given: dict, key: str, default: str) -> str:
    value = given.get(key, default)
    if not (isinstance(value, str) and value):
        raise UsageError(f'own_data.{key} is {value!r}, expected an ending such as {default!r}')
    return value


def _suffixes(given: dict) -> tuple[str, ...]:
    value = given.get('image_suffix', '.jpg')
    items = [value] if isinstance(value, str) else value
    if not (isinstance(items, Sequence) and items and all(map(_is_ending, items))):
        raise UsageError(
            f"own_data.image_suffix is {value!r}, expected an ending such as '.jpg', or several, "
            "('.jpg', '.png')"
        )
    found = tuple(dict.fromkeys(items))
    lower = [item.lower() for item in found]
    for index, item in enumerate(lower):
        if any(item.endswith(other) for other in lower[:index] + lower[index + 1 :]):
            raise UsageError(
                f'own_data.image_suffix={value!r}: {found[index]!r} ends in another one of them '
                '(upper and lower case are the same), so name the shorter one alone'
            )
    return found


def _is_ending(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _pair(value: Any) -> tuple[int, int] | None:
    pair = [value, value] if _is_number(value) else value
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_number, pair))):
        return None
    if any(item < 1 or item != int(item) for item in pair):
        return None
    return int(pair[0]), int(pair[1])


def _size(given: dict, key: str, default: int) -> tuple[int, int]:
    value = given.get(key, default)
    pair = _pair(value)
    if pair is None:
        raise UsageError(
            f'own_data.{key} is {value!r}, expected height and width in pixels, for instance '
            f'({default}, {default})'
        )
    return pair


def _scale(given: dict) -> tuple[int, int] | None:
    value = given.get('image_scale')
    pair = None if value is None else _pair(value)
    if value is not None and pair is None:
        raise UsageError(
            f'own_data.image_scale is {value!r}, expected the longest long side and the longest '
            'short side in pixels, for instance (2048, 512), or None for images as they are'
        )
    return pair and (max(pair), min(pair))


def _bounds(given: dict) -> tuple[int, int]:
    value = given.get('iterations', (2000, 160_000))
    pair = _pair(value)
    if pair is None or pair[0] > pair[1]:
        raise UsageError(
            f'own_data.iterations is {value!r}, expected the fewest and the most iterations, for '
            'instance (2000, 160000)'
        )
    return pair


def _factors(given: dict) -> tuple[float, float]:
    value = given.get('scale_range', (0.75, 1.5))
    pair = [value, value] if _is_number(value) else value
    if not (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(_is_number(item) and item > 0 for item in pair)
        and pair[0] <= pair[1]
    ):
        raise UsageError(
            f'own_data.scale_range is {value!r}, expected the smallest and the largest factor, for '
            'instance (0.5, 2.0)'
        )
    return float(pair[0]), float(pair[1])


def _ignored(given: dict) -> tuple[int, ...]:
    value = given.get('ignore', (255,))
    values = [value] if _is_number(value) else [] if value is None else value
    if not (
        isinstance(values, (list, tuple))
        and all(_is_number(item) and item == int(item) and 0 <= item <= 255 for item in values)
    ):
        raise UsageError(
            f'own_data.ignore is {value!r}, expected label values from 0 to 255, for instance '
            '(11, 255)'
        )
    return tuple(sorted({int(item) for item in values}))
