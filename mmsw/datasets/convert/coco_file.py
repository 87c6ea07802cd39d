"""Writing COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsw.errors import UnfitError

from .annotated import AnnotatedImage, AnnotatedObject, LeftOut
from .outlines import area_of, box_of, encoded, inside, written


def coco_content(
    images: Sequence[AnnotatedImage], classes: Sequence[str], left_out: LeftOut
) -> dict[str, list]:
    """What a COCO file says of some images.

    Args:
        images: Of one part.
        classes: Their ids are 1, 2 and so on; other objects are left out.
        left_out: Told about objects that cannot be learned.

    Returns:
        Lists of images, annotations and categories. Ids begin with 1: pycocotools counts an
        annotation of id 0 as missed.
    """
    numbers = {name: index + 1 for index, name in enumerate(classes)}
    listed: list[dict] = []
    annotations: list[dict] = []
    for index, image in enumerate(images):
        size = dict(height=image.height, width=image.width)
        listed.append(dict(id=index + 1, file_name=str(image.name), **size))
        for item in image.objects:
            if item.label not in numbers:  # it means no class
                continue
            try:
                content = _annotation(item, image.height, image.width)
            except UnfitError as reason:
                left_out.skip(image.name, reason)
                continue
            ids = dict(image_id=index + 1, category_id=numbers[item.label])
            annotations.append(dict(id=len(annotations) + 1, **ids, **content))
    categories = [dict(id=number, name=name) for name, number in numbers.items()]
    return dict(images=listed, annotations=annotations, categories=categories)


def _annotation(item: AnnotatedObject, height: int, width: int) -> dict[str, Any]:
    box = inside(item.box, height, width)
    if box is None:
        raise UnfitError('object of less than a pixel inside of its image')
    found: dict[str, Any] = dict(bbox=box, area=box[2] * box[3], iscrowd=int(item.crowd))
    if item.outline is None:
        return found
    rle = encoded(item.outline, height, width)
    found['area'] = float(area_of(rle))
    if not found['area']:
        raise UnfitError('object whose outline holds no pixel')
    if isinstance(item.outline, dict):
        found['bbox'] = inside(box_of(rle), height, width)
        found['segmentation'] = written(rle)
    else:
        found['segmentation'] = item.outline
    return found


def write_coco(path: Path, content: dict[str, list]) -> None:
    """Write a file of a line per part; the same content makes the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(content, allow_nan=False, ensure_ascii=False) + '\n', encoding='utf-8'
    )
