"""Training on crops of another size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from mmsw.component_name import component_name, component_package
from mmsw.errors import UsageError
from mmsw.whole_number import whole_number
from mmsw.wording import listed

from .changes import Changes

# Keys that hold transforms; the first ones are those of training.
_OF_TRAINING = ('train_dataloader', 'train_pipeline', 'custom_hooks')
_OF_TESTS = ('val_dataloader', 'test_dataloader', 'test_pipeline', 'tta_pipeline')
# Transforms that resize -> the keys of the sizes that they resize to.
_SCALES = {
    'Resize': ('scale',),
    'RandomResize': ('scale',),
    'RandomChoiceResize': ('scales', 'max_size'),
    'ResizeShortestEdge': ('scale', 'max_size'),
    'FixScaleResize': ('scale',),
}
_SIZES = ('size', 'img_scale', 'img_size')  # of what fills up or composes images of one size
_FIXED = ('RandomCrop', 'RandomCenterCropPad')

Size = tuple[int, int]


def set_crop_size(cfg: Config, size: Any) -> Changes:
    """Train on crops of another size, in place.

    The size is set in the crops of the training pipelines (inside of wrappers and choices, and in
    pipelines that a hook switches to), in what pads images to a crop (the preprocessor of the
    model, ``Pad``), and in networks that are built for a size (``img_size``). A window that slides
    over test images becomes as large as the crop, and overlaps by the same share as before.

    Images are resized as before, unless the short side that they are resized to is now shorter than
    the crop: then every scale grows with the crop, in training, tests and test-time augmentation.
    Published recipes do the same: crops of 512 from images of (2048, 512), crops of 640 from
    (2560, 640).

    Args:
        cfg: Config of mmsegmentation or mmdetection.
        size: Side of square crops, or height and width, in pixels.

    Returns:
        What was changed.

    Raises:
        UsageError: If the size makes no sense, or the training pipelines cut no crops of one fixed
            size.
    """
    new = _checked(size)
    scope = cfg.get('default_scope')
    if scope not in ('mmseg', 'mmdet'):
        raise UsageError(
            f'crop_size={size} is for configs of mmseg and mmdet, not of default_scope={scope!r}: '
            'set the sizes in its pipelines with --cfg-options'
        )
    train = [pair for key in _OF_TRAINING for pair in _dicts(cfg.get(key), key)]
    tests = [pair for key in _OF_TESTS for pair in _dicts(cfg.get(key), key)]
    old = _old_size(cfg, train, size)
    factor = _growth(cfg, old, new)
    changes = Changes()
    for item, path in train:
        if component_name(item.get('type')) in _FIXED:
            flip = _width_first(item, scope)
            changes.set(item, 'crop_size', new[::-1] if flip else new, path)
        else:
            _resize_equal(item, path, old, new, changes)
    _set_model(cfg, old, new, changes)
    if factor != 1:
        for item, path in train + tests:
            _grow(item, path, factor, old, changes, test=path.partition('.')[0] in _OF_TESTS)
    if 'crop_size' in cfg and changes.places:
        cfg.crop_size = new  # the variable of the file, which nothing reads
    # what nothing reads needs no word either
    for path in [path for path in changes.places if path.startswith('train_pipeline.')]:
        del changes.places[path]
    return changes


def _checked(size: Any) -> Size:
    sides = size if isinstance(size, (list, tuple)) else (size, size)
    try:
        height, width = (whole_number(side, 'crop_size', positive=True) for side in sides)
    except ValueError:
        raise UsageError(
            f'crop_size={size!r} is no size: expected the side of a square in pixels, such as '
            'crop_size=640, or height and width, such as crop_size="(480,640)"'
        ) from None
    return height, width


def _dicts(value: Any, path: str) -> Iterator[tuple[dict, str]]:
    """All dicts in a part of a config, with their dotted keys."""
    if isinstance(value, dict):
        yield value, path
        for key, item in value.items():
            yield from _dicts(item, f'{path}.{key}')
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _dicts(item, f'{path}.{index}')


def _pair(value: Any) -> Size | None:
    """Height and width, or width and height; ``None`` for what is no size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        first, second = value
        if isinstance(first, int) and isinstance(second, int):
            return first, second
    return None


def _width_first(item: dict, scope: str) -> bool:
    """Whether a crop is given as width and height, as mmdet does."""
    kind = item.get('type')
    if component_name(kind) != 'RandomCrop':
        return False
    named = kind.partition('.')[0] if isinstance(kind, str) and '.' in kind else ''
    return (named or component_package(kind) or scope) == 'mmdet'


def _old_size(cfg: Config, train: list[tuple[dict, str]], size: Any) -> Size:
    """Height and width of the crops of training, or of what the model is for without a training."""
    found: dict[Size, str] = {}
    scope = cfg.default_scope
    for item, path in train:
        kind = component_name(item.get('type'))
        if path.startswith('train_pipeline') or 'pipeline' not in path or 'Crop' not in kind:
            continue
        crop = _pair(item.get('crop_size'))
        if kind not in _FIXED or crop is None or item.get('crop_type', 'absolute') != 'absolute':
            settings = ', '.join(f'{key}={value}' for key, value in item.items() if key != 'type')
            raise UsageError(
                f'crop_size={size} cannot be set: {path} is {kind}({settings}), which does not cut '
                f'to one fixed size. Set its sizes with --cfg-options {path}.KEY=VALUE'
            )
        found[crop[::-1] if _width_first(item, scope) else crop] = path
    if len(found) > 1:
        places = listed([f'{path} to {crop}' for crop, path in found.items()])
        raise UsageError(
            f'crop_size={size} cannot be set: the training pipelines cut to several sizes, '
            f'{places}. Set each with --cfg-options PLACE.crop_size=...'
        )
    if found:
        return next(iter(found))
    if cfg.get('train_dataloader'):
        raise UsageError(f'crop_size={size} cannot be set: {_without_crops(train)}')
    model = cfg.get('model') or {}
    known = _pair((model.get('test_cfg') or {}).get('crop_size'))
    known = known or _pair((model.get('data_preprocessor') or {}).get('size'))
    if known is None:
        raise UsageError(
            f'crop_size={size} cannot be set: the config has neither a training pipeline nor '
            'model.test_cfg.crop_size'
        )
    return known


def _without_crops(train: list[tuple[dict, str]]) -> str:
    """What a training pipeline without a crop does to the size of images."""
    places = [
        f'{path}.{key}={item[key]}'
        for item, path in train
        for key in _SCALES.get(component_name(item.get('type')), ())
        if key in item and not path.startswith('train_pipeline')
    ]
    why = 'no transform of the training pipeline cuts crops of a fixed size'
    if places:
        return f'{why}. Images are resized by {listed(places)}: set that, and the same in the tests'
    return f"{why}. Put dict(type='RandomCrop', crop_size=...) into it"


def _growth(cfg: Config, old: Size, new: Size) -> float:
    """Factor of all scales: 1, or that of the crop if images would be shorter than it."""
    if min(new) <= min(old):
        return 1.0
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'test_pipeline'):
        for item, _ in _dicts(cfg.get(key), key):
            kind = component_name(item.get('type'))
            scale = item.get('scale')
            if kind not in ('Resize', 'RandomResize', 'ResizeShortestEdge', 'FixScaleResize'):
                continue
            pairs = [_pair(scale)]
            if pairs == [None] and isinstance(scale, (list, tuple)):  # from one scale to another
                pairs = [_pair(part) for part in scale]
            sides = [min(pair) for pair in pairs if pair]
            if sides and min(old) <= max(sides) < min(new):
                return min(new) / min(old)
    return 1.0


def _grow(item: dict, path: str, factor: float, old: Size, changes: Changes, *, test: bool) -> None:
    for key in _SCALES.get(component_name(item.get('type')), ()):
        if item.get(key) is not None:
            changes.set(item, key, _times(item[key], factor), path)
    pair = _pair(item.get('size'))
    pads = test and component_name(item.get('type')) == 'Pad'
    if pads and pair and sorted(pair) == sorted(old):
        changes.set(item, 'size', _times(item['size'], factor), path)


def _times(value: Any, factor: float) -> Any:
    """Sides of pixels times a factor, in any nesting; -1 and infinity stay."""
    if isinstance(value, (list, tuple)):
        return type(value)(_times(item, factor) for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return round(value * factor)
    return value


def _resize_equal(item: dict, path: str, old: Size, new: Size, changes: Changes) -> None:
    """What has the size of the crop takes the new one, in its own order of the sides."""
    if component_name(item.get('type')) in _SCALES:
        return
    for key in _SIZES:
        given = item.get(key)
        pair = _pair(given)
        if pair is None or sorted(pair) != sorted(old):
            continue
        # mmcv pads to width and height
        turned = pair != old or (key == 'size' and component_name(item.get('type')) == 'Pad')
        value = new[::-1] if turned else new
        if isinstance(given, int) and new[0] == new[1]:
            value = new[0]
        changes.set(item, key, value, path)


def _set_model(cfg: Config, old: Size, new: Size, changes: Changes) -> None:
    model = cfg.get('model') or {}
    preprocessor, path = model.get('data_preprocessor'), 'model.data_preprocessor'
    if preprocessor is None:
        preprocessor, path = cfg.get('data_preprocessor'), 'data_preprocessor'
    if isinstance(preprocessor, dict) and preprocessor.get('size') is not None:
        changes.set(preprocessor, 'size', new, path)
    for key in ('data_preprocessor', 'backbone', 'image_encoder', 'decode_head', 'auxiliary_head'):
        for item, path in _dicts(model.get(key), f'model.{key}'):
            _resize_equal(item, path, old, new, changes)
    test = model.get('test_cfg')
    window = isinstance(test, dict) and test.get('crop_size')
    if not window:
        return
    before = _pair(window) or old
    changes.set(test, 'crop_size', new, 'model.test_cfg')
    stride = _pair(test.get('stride'))
    if stride:
        steps = _steps(stride, before, new)
        changes.set(test, 'stride', steps, 'model.test_cfg')


def _steps(stride: Sequence[int], before: Size, new: Size) -> Size:
    """Strides in the same ratio to the window as before."""
    first, second = (
        max(1, round(step * after / side))
        for step, after, side in zip(stride, new, before, strict=True)
    )
    return first, second
