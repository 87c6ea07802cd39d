"""labelme: one JSON file with shapes per image."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmsw.errors import DataError, UnfitError

from .annotated import (
    IGNORE,
    AnnotatedImage,
    AnnotatedObject,
    Found,
    LeftOut,
    Progress,
    class_names,
)
from .outlines import box_of, encoded, from_mask
from .parts import part_of
from .pictures import Pictures, check_size, clean_name, files_below, size_of

_FORMATS = {'JPEG': '.jpg', 'PNG': '.png', 'BMP': '.bmp', 'TIFF': '.tif', 'WEBP': '.webp'}
_CORNERS_OF_CIRCLE = 64


def read_labelme(
    source: Path, pictures: Pictures, progress: Progress, classes: Sequence[str] | None = None
) -> Found:
    """Read all JSON files of labelme below a folder.

    Polygons, rectangles, circles and masks become objects; those of one label and ``group_id`` are
    one object. Lines and points have no area; they are skipped.

    Args:
        source: Folder. Folders in it called train, val or test say what is for which part.
        pictures: Where the pictures are. Those that are not there are taken out of the JSON file.
        progress: Told about each file.
        classes: Names of the classes; other objects are left out. None: all labels, sorted.

    Returns:
        Images with outlines.

    Raises:
        DataError: If there is no JSON file.
    """
    paths = list(files_below(source, '.json'))
    if not paths:
        raise DataError(f'{source} has no .json file; expected is one per image, as labelme writes')
    left_out, images = LeftOut(), []
    for index, path in enumerate(paths):
        progress('read', index + 1, len(paths))
        place = path.relative_to(source)
        part = part_of(place.parts[0]) if len(place.parts) > 1 else None
        name = PurePosixPath(*(place.parts[1:] if part else place.parts)).with_suffix('')
        try:
            images.append(_image(path, name, part, pictures, left_out))
        except UnfitError as reason:
            left_out.skip(place, reason)
    if not images and all('shapes' in reason for reason in left_out.skipped):
        raise DataError(f'{source} has no JSON file of labelme, with a list of shapes')
    labels = {item.label for image in images for item in image.objects} - {IGNORE}
    return Found(images, class_names(classes, labels), left_out)


def _image(
    path: Path, name: PurePosixPath, part: str | None, pictures: Pictures, left_out: LeftOut
) -> AnnotatedImage:
    try:
        given = json.loads(path.read_text(encoding='utf-8-sig'))
    except (ValueError, RecursionError, OSError) as error:
        raise UnfitError('the file is no valid JSON') from error
    if not isinstance(given, dict) or not isinstance(given.get('shapes'), list):
        raise UnfitError('the JSON file has no list of shapes')
    wanted = clean_name(given['imagePath']) if _is_text(given.get('imagePath')) else None
    names = [item for item in (wanted, PurePosixPath(path.stem)) if item]
    if wanted and (path.parent / given['imagePath'].replace('\\', '/')).is_file():
        picture = (path.parent / given['imagePath'].replace('\\', '/')).resolve()
    else:
        picture = pictures.find(names, path.parent, part or '')
    content = None if picture else _embedded(given)
    height, width = size_of(picture or content)
    stated = given.get('imageHeight'), given.get('imageWidth')
    if all(isinstance(side, int) and side > 0 for side in stated):
        check_size(stated, (height, width))
    suffix = picture.suffix if picture else _suffix_of(content)
    # The name may hold points, which are no ending.
    image = AnnotatedImage(name.with_name(name.name + suffix), height, width, part=part)
    image.picture, image.content = picture, content
    image.objects = _objects(given['shapes'], height, width, name, left_out)
    return image


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _embedded(given: dict) -> bytes:
    if not _is_text(given.get('imageData')):
        raise UnfitError('its picture is neither there nor in imageData')
    try:
        return base64.b64decode(given['imageData'])
    except ValueError as error:
        raise UnfitError('its imageData is no picture') from error


def _suffix_of(content: bytes) -> str:
    from PIL import Image  # as in mmcv

    with Image.open(io.BytesIO(content)) as picture:
        return _FORMATS.get(picture.format, '.png')


def _objects(
    shapes: list, height: int, width: int, name: PurePosixPath, left_out: LeftOut
) -> list[AnnotatedObject]:
    """Objects in the order of their first shapes."""
    groups: dict[tuple, list[dict]] = {}
    for index, shape in enumerate(shapes):
        if not isinstance(shape, dict) or not _is_text(shape.get('label')):
            left_out.skip(name, 'shape without a label')
            continue
        group = shape.get('group_id')
        key = (shape['label'].strip(), index if group is None else f'group {group}')
        groups.setdefault(key, []).append(shape)
    found = []
    for (label, _), members in groups.items():
        outlines = []
        for shape in members:
            try:
                outlines.append(_outline(shape, height, width))
            except UnfitError as reason:
                left_out.skip(name, reason)
        if outlines:
            crowd = any(shape.get('difficult') is True for shape in members)
            found.append(_object(label, outlines, height, width, crowd))
    return found


def _object(
    label: str, outlines: list[list[float] | dict], height: int, width: int, crowd: bool
) -> AnnotatedObject:
    outline: list[list[float]] | dict = outlines
    if any(isinstance(item, dict) for item in outlines):
        from pycocotools import mask

        parts = [item if isinstance(item, dict) else [item] for item in outlines]
        outline = mask.merge([encoded(item, height, width) for item in parts])
        return AnnotatedObject(label, box_of(outline), outline, crowd)
    numbers = np.concatenate([np.asarray(item).reshape(-1, 2) for item in outlines])
    low, high = numbers.min(0), numbers.max(0)
    return AnnotatedObject(label, [*map(float, low), *map(float, high - low)], outline, crowd)


def _outline(shape: dict, height: int, width: int) -> list[float] | dict:
    """A polygon or a run-length encoding."""
    kind = shape.get('shape_type') or 'polygon'  # old files have no types
    try:
        points = np.array(shape.get('points'), dtype=float).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise UnfitError('shape with points that are no pairs of numbers') from error
    if not np.isfinite(points).all():
        raise UnfitError('shape with points that are no pairs of numbers')
    if kind in ('rectangle', 'mask') and len(points) == 2:
        low, high = points.min(0), points.max(0)
        if kind == 'mask':
            return _drawn(shape, low, height, width)
        return [*low, high[0], low[1], *high, low[0], high[1]]
    if kind == 'circle' and len(points) == 2:
        turns = np.arange(_CORNERS_OF_CIRCLE) * (2 * math.pi / _CORNERS_OF_CIRCLE)
        radius = math.dist(*points)
        points = points[0] + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
    elif kind not in ('polygon', 'rectangle', 'rotation'):
        raise UnfitError(f'shape of the type {kind}, which has no area')
    if len(points) < 3:
        raise UnfitError(f'shape of the type {kind} with {len(points)} points')
    return [float(number) for number in points.ravel()]


def _drawn(shape: dict, corner: np.ndarray, height: int, width: int) -> dict:
    """A mask that stands as a picture in the file, with its place in the image."""
    from PIL import Image  # as in mmcv

    try:
        with Image.open(io.BytesIO(base64.b64decode(shape['mask']))) as picture:
            drawn = np.asarray(picture.convert('L')) > 0
    except Exception as error:  # whatever a decoder raises
        raise UnfitError('shape of the type mask without a picture that can be read') from error
    whole = np.zeros((height, width), bool)
    left, top = (max(int(number), 0) for number in corner)
    part = whole[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    part |= drawn[: part.shape[0], : part.shape[1]]
    return from_mask(whole)
