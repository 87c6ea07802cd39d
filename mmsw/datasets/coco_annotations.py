"""What is wrong with a COCO annotation file, and its categories, read without the rest."""

from __future__ import annotations

import json
import mmap
import os
import re
from typing import Any

_PARTS = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
_CONVERT = '`python tools/convert_dataset.py coco FILE --to coco --out DIR`'
_CATEGORIES = re.compile(rb'"categories"\s*:\s*\[')
_MOST = 1 << 24  # bytes that categories may take


def explain_coco_file(path: str | os.PathLike[str]) -> str | None:
    """Find out why a COCO annotation file cannot be used; reads and checks all of it.

    Args:
        path: A local file.

    Returns:
        What is wrong, to follow the name of the file; ``None`` if nothing is.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except FileNotFoundError:
        return 'does not exist'
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    if not content.strip():
        return f'is empty ({len(content)} bytes)'
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        return f'is no valid JSON ({error}): it may be cut off'
    if not isinstance(found, dict):
        return f'holds a {type(found).__name__} instead of a dict with {", ".join(_PARTS)}'
    lacking = [part for part in _PARTS if not isinstance(found.get(part), list)]
    if lacking:
        return f'lacks the list of {" and that of ".join(lacking)}'
    if not found['images']:
        return 'lists no image'
    for part in _PARTS:
        problem = _problem_in(part, found[part])
        if problem:
            return problem
    return _problem_of_references(found)


def _problem_in(part: str, items: list[Any]) -> str | None:
    seen = set()
    for index, item in enumerate(items):
        where = f'has in {part}[{index}]'
        if not isinstance(item, dict):
            return f'{where} a {type(item).__name__} instead of a dict'
        lacking = [key for key in _PARTS[part] if key not in item]
        if lacking:
            return f'{where} no {", ".join(lacking)}: {_CONVERT} fills in what can be known'
        if item['id'] in seen:
            return f'{where} the id {item["id"]!r} a second time'
        seen.add(item['id'])
        problem = _problem_of_object(item) if part == 'annotations' else None
        if problem:
            return f'{where} {problem}'
    return None


def _problem_of_object(item: dict) -> str | None:
    box, area = item.get('bbox'), item.get('area')
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        return f'the bbox {box!r} instead of four numbers [x, y, width, height]'
    if not _is_number(area):
        return f'the area {area!r} instead of a number'
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def explain_outline(outline: list | dict, shape: tuple[int, int] | None = None) -> str | None:
    """Find out why the outline of an object cannot be loaded as a mask.

    Args:
        outline: ``segmentation`` of a COCO annotation: polygons or a run-length encoding.
        shape: Height and width of the image, if they are to be compared.

    Returns:
        What is wrong, to follow the name of the object; ``None`` if nothing is.
    """
    if isinstance(outline, list):
        if outline and _is_number(outline[0]):
            return (
                f'a segmentation that is one list of numbers, expected are polygons, [[x1, y1, '
                f'x2, y2, ...]]: {_CONVERT} writes them'
            )
        return None
    size, counts = (outline.get(key) for key in ('size', 'counts'))
    if counts is None or not isinstance(size, (list, tuple)) or len(size) != 2:
        return None  # mmdet leaves such an object out
    if not counts:
        return 'a segmentation without counts: export it again'
    size = tuple(map(int, size))
    if shape not in (None, size):
        return (
            f'a mask {size[1]} pixels wide and {size[0]} high in an image {shape[1]} and '
            f'{shape[0]}: export the masks again for these images'
        )
    if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
        return (
            f'a mask whose counts add up to {sum(counts)} pixels, but {size[1]} x {size[0]} are '
            f'{size[0] * size[1]}: export it again'
        )
    return None


def _problem_of_references(found: dict) -> str | None:
    images = {item['id'] for item in found['images']}
    categories = {item['id'] for item in found['categories']}
    for index, item in enumerate(found['annotations']):
        for key, known in (('image_id', images), ('category_id', categories)):
            if item[key] not in known:
                return f'has in annotations[{index}] an unknown {key} {item[key]!r}'
    return None


def category_names(path: str | os.PathLike[str]) -> list[str] | None:
    """Names of the categories of a COCO annotation file in the file's order.

    Only that list is read, wherever it stands, which takes well under a second for the half
    gigabyte of COCO's training annotations.

    Args:
        path: A local file.

    Returns:
        The names; ``None`` if the list is not found, or empty.
    """
    decoder = json.JSONDecoder()
    try:
        with (
            open(path, 'rb') as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            for match in _CATEGORIES.finditer(content):
                start = match.end() - 1
                items, _ = decoder.raw_decode(_text(content, start))
                if items and all(isinstance(item, dict) and 'name' in item for item in items):
                    return [item['name'] for item in items]
    except (OSError, ValueError):  # ValueError: an empty file, or no JSON
        pass
    return None


def _text(content: mmap.mmap, start: int) -> str:
    return content[start : start + _MOST].decode('utf-8', 'ignore')
