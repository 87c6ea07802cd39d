"""Pascal VOC: one XML file with boxes per image, as LabelImg, CVAT and Roboflow write it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from mmsw.errors import DataError, UnfitError

from .annotated import (
    AnnotatedImage,
    AnnotatedObject,
    Found,
    LeftOut,
    Progress,
    class_names,
)
from .parts import listed_parts, part_of
from .pictures import Pictures, check_size, clean_name, files_below, size_of

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_voc(
    source: Path,
    pictures: Pictures,
    progress: Progress,
    classes: Sequence[str] | None = None,
    one_based: bool = False,
) -> Found:
    """Read all XML files below a folder.

    Args:
        source: Folder. If it has ``ImageSets/Main``, its lists say what is for which part.
        pictures: Where the pictures are.
        progress: Told about each file.
        classes: Names of the classes; other objects are left out. None: all names, sorted.
        one_based: Whether the first pixel is 1 and the last one belongs to the box, as in the files
            of the PASCAL VOC challenge. Other programs count from 0 to the border.

    Returns:
        Images with boxes; what is marked as difficult is a crowd.

    Raises:
        DataError: If there is no XML file.
    """
    paths = list(files_below(source, '.xml'))
    if not paths:
        raise DataError(f'{source} has no .xml file; expected is one per image, as Pascal VOC has')
    left_out, images = LeftOut(), []
    parts = listed_parts(source, 'Main')
    for index, path in enumerate(paths):
        progress('read', index + 1, len(paths))
        name = _name(path.relative_to(source))
        folders = path.relative_to(source).parts[:-1]
        part = parts.get(path.stem) if parts else part_of(folders[0]) if folders else None
        if parts and part is None:
            left_out.note(name, 'no list in ImageSets/Main names the image')
            continue
        try:
            image = _image(path, name, part, pictures, left_out, one_based)
        except UnfitError as reason:
            left_out.skip(name, reason)
            continue
        images.append(image)
    labels = {item.label for image in images for item in image.objects}
    return Found(images, class_names(classes, labels), left_out)


def _name(path: Path) -> PurePosixPath:
    """Name of the image without folders that only say that there are annotations, or a part."""
    folders = [item for item in path.parent.parts if item.lower() != 'annotations']
    if folders and part_of(folders[0]):
        folders = folders[1:]
    return PurePosixPath(*folders, path.stem)


def _image(
    path: Path,
    name: PurePosixPath,
    part: str | None,
    pictures: Pictures,
    left_out: LeftOut,
    one_based: bool,
) -> AnnotatedImage:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise UnfitError('the file is no valid XML') from error
    if root.tag != 'annotation':
        raise UnfitError('the file is no annotation of Pascal VOC')
    # First the name of the XML file, since programs copy files with old names inside.
    names = [name.parent / path.stem, clean_name(root.findtext('filename') or path.stem)]
    picture = pictures.find(names, path.parent, part)
    if picture is None:
        raise UnfitError('its picture is not there')
    height, width = size_of(picture)
    stated = _number(root.find('size/height')), _number(root.find('size/width'))
    if all(stated):  # some programs write 0
        check_size((int(stated[0]), int(stated[1])), (height, width))
    image = AnnotatedImage(name.with_name(path.stem + picture.suffix), height, width, part=part)
    image.picture = picture
    for node in root.findall('object'):
        try:
            image.objects.append(_object(node, one_based))
        except UnfitError as reason:
            left_out.skip(name, reason)
    return image


def _object(node: ElementTree.Element, one_based: bool) -> AnnotatedObject:
    label = (node.findtext('name') or '').strip()
    if not label:
        raise UnfitError('object without a name')
    corners = [_number(node.find(f'bndbox/{key}')) for key in _CORNERS]
    if None in corners:
        raise UnfitError('object without xmin, ymin, xmax and ymax in bndbox')
    left, right = sorted(corners[::2])
    top, bottom = sorted(corners[1::2])
    if one_based:
        left, top = left - 1, top - 1
    box = [left, top, right - left, bottom - top]
    return AnnotatedObject(label, box, crowd=bool(_number(node.find('difficult'))))


def _number(node: ElementTree.Element | None) -> float | None:
    try:
        number = float(node.text)
    except (AttributeError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
