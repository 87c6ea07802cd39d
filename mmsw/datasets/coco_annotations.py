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
            return f'{where} no {", ".join(lacking)}'
        if item['id'] in seen:
            return f'{where} the id {item["id"]!r} a second time'
        seen.add(item['id'])
        box = item.get('bbox')
        if part == 'annotations' and not (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(number, (int, float)) for number in box)
        ):
            return f'{where} the bbox {box!r} instead of four numbers [x, y, width, height]'
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
