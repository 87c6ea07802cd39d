"""COCO JSON as CVAT, Roboflow and others export it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsw.errors import DataError, UnfitError
from mmsw.wording import short

from .annotated import AnnotatedImage, AnnotatedObject, Found, LeftOut, Progress
from .outlines import box_of, checked_outline, encoded
from .parts import part_of
from .pictures import SUFFIXES, Pictures, check_size, clean_name, files_below, size_of

_DAMAGE = (TypeError, ValueError, OverflowError)  # numbers that are none
_KEYS = ('images', 'annotations', 'categories')


def read_coco(
    source: Path, pictures: Pictures, progress: Progress, classes: Sequence[str] | None = None
) -> Found:
    """Read an annotation file, or all of them below a folder.

    Args:
        source: File or folder. Names of files and folders, such as ``instances_val.json`` or
            ``valid/_annotations.coco.json``, say which part a file is for.
        pictures: Where the pictures are.
        progress: Told about each image.
        classes: Names of the classes; other objects are left out. None: the categories in the order
            of the files, without the one of Roboflow that holds all others together.

    Returns:
        Images with boxes, and outlines where there are some.

    Raises:
        DataError: If there is no such file, or a part of it is damaged.
    """
    files = _files(source)
    left_out, images, names = LeftOut(), [], {}
    for path, content in files.items():
        part = part_of(path.stem) or part_of(path.parent.name)
        categories = {item['id']: str(item['name']) for item in content['categories']}
        holder = _holder(content)
        for number, name in categories.items():
            if number == holder:
                left_out.note(name, 'category that only holds the others together')
            else:
                names[name] = None
        images += _Reader(path, content, categories, part, pictures, left_out).images(progress)
    return Found(images, list(classes or names), left_out)


def _files(source: Path) -> dict[Path, dict]:
    paths = [source] if source.is_file() else list(files_below(source, '.json'))
    if any(path.name.startswith('instances_') for path in paths):  # others hold captions and points
        paths = [path for path in paths if path.name.startswith('instances_')]
    found, problems = {}, []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding='utf-8-sig'))
        except (ValueError, RecursionError, OSError) as error:
            problems.append(f'{path} is no valid JSON ({error})')
            continue
        if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS):
            found[path] = content
            _check(path, content)
    if problems:
        raise DataError(problems[0])
    if not found:
        raise DataError(
            f'{source}: there is no JSON file in the COCO format, which has the lists '
            f'{", ".join(_KEYS)}'
        )
    return found


def _check(path: Path, content: dict) -> None:
    for key, needed in (('images', 'file_name'), ('categories', 'name')):
        for index, item in enumerate(content[key]):
            if not isinstance(item, dict) or not {'id', needed} <= item.keys():
                raise DataError(f'{path} has in {key}[{index}] no id and {needed}')


def _holder(content: dict) -> Any:
    """Id of the category that Roboflow puts above all others, which no object has."""
    items = content['categories']
    above = {item.get('supercategory') for item in items}
    used = {item.get('category_id') for item in content['annotations'] if isinstance(item, dict)}
    for item in items:
        own = item.get('supercategory')
        if len(items) > 1 and own == 'none' and item['name'] in above and item['id'] not in used:
            return item['id']
    return None


class _Reader:
    """Reads one annotation file."""

    def __init__(
        self,
        path: Path,
        content: dict,
        categories: dict[Any, str],
        part: str | None,
        pictures: Pictures,
        left_out: LeftOut,
    ) -> None:
        self.path, self.content, self.categories = path, content, categories
        self.part, self.pictures, self.left_out = part, pictures, left_out

    def images(self, progress: Progress) -> list[AnnotatedImage]:
        objects: dict[Any, list[Any]] = {item['id']: [] for item in self.content['images']}
        for item in self.content['annotations']:
            image = item.get('image_id') if isinstance(item, dict) else None
            if image not in objects:
                self.left_out.skip(self.path.name, 'annotation of an image that is not listed')
            else:
                objects[image].append(item)
        found, total = [], len(self.content['images'])
        for index, item in enumerate(self.content['images']):
            progress('read', index + 1, total)
            try:
                if item['id'] not in objects:
                    raise UnfitError('its id belongs to another image as well')
                found.append(self._image(item, objects.pop(item['id'])))
            except UnfitError as reason:
                self.left_out.skip(item['file_name'], reason)
            except _DAMAGE as error:
                self.left_out.skip(item['file_name'], f'damaged entry ({short(error)})')
        return found

    def _image(self, item: dict, objects: list[dict]) -> AnnotatedImage:
        name = clean_name(str(item['file_name']))
        picture = self.pictures.find([name], self.path.parent, self.part)
        if picture is None:
            raise UnfitError('its picture is not there')
        if name.suffix.lower() not in SUFFIXES:  # the ending is left out in the file
            name = name.with_name(name.name + picture.suffix)
        height, width = size_of(picture)
        if item.get('height') and item.get('width'):
            check_size((int(item['height']), int(item['width'])), (height, width))
        image = AnnotatedImage(name, height, width, picture=picture, part=self.part)
        for given in objects:
            try:
                image.objects.append(self._object(given, height, width))
            except UnfitError as reason:
                self.left_out.skip(name, reason)
            except _DAMAGE as error:
                self.left_out.skip(name, f'damaged object ({short(error)})')
        return image

    def _object(self, given: dict, height: int, width: int) -> AnnotatedObject:
        label = self.categories.get(given.get('category_id'))
        if label is None:
            raise UnfitError('object of a category that is not listed')
        outline = checked_outline(given.get('segmentation'))
        rle = encoded(outline, height, width) if outline else None
        box = given.get('bbox')
        if not _is_box(box):
            if rle is None:
                raise UnfitError('object without a box and an outline')
            box = box_of(rle)
        outline = rle if isinstance(outline, dict) else outline
        return AnnotatedObject(label, list(map(float, box)), outline, bool(given.get('iscrowd')))


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(item, (int, float)) and math.isfinite(item) for item in value)
    )
