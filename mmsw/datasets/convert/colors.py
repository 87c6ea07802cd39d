"""Label maps drawn in colours, such as CVAT's "Segmentation mask 1.1"."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mmsw.errors import DataError, UnfitError
from mmsw.wording import listed

from ..label_values import IGNORED
from .annotated import AnnotatedImage, Found, LeftOut, Progress
from .label_map_files import is_background
from .parts import listed_parts, part_of
from .pictures import Pictures, check_size, files_below, opened, size_of

TABLES = ('labelmap.txt', 'class_dict.csv', 'label_colors.txt')
_FOLDER = 'SegmentationClass'
_OTHER_FOLDER = 'SegmentationObject'  # a colour per object
_ENDINGS = ('.png', '.bmp', '.tif', '.tiff')
_UNKNOWN = 254  # no class has this number
_NUMBERS = re.compile(r'\d+')


def read_colors(
    source: Path,
    pictures: Pictures,
    progress: Progress,
    classes: Sequence[str] | None = None,
    background: int = 0,
    table: Path | None = None,
    mask_suffix: str = '',
    ignore_unknown: bool = False,
) -> Found:
    """Read the table of colours and find the masks; they are read when they are written.

    Args:
        source: Folder; the masks lie in its folder ``SegmentationClass``, else in it.
        pictures: Where the pictures are.
        progress: Told about each mask.
        classes: Names of the classes; pixels of others are to be ignored. None: those of the table.
        background: 255 if pixels of the class background are to be ignored.
        table: File with a colour per class. None: ``labelmap.txt``, ``class_dict.csv`` or
            ``label_colors.txt`` in the folder.
        mask_suffix: What the names of masks have behind the name of their picture, for instance
            ``'_L.png'``.
        ignore_unknown: Pixels of a colour that the table does not name are to be ignored; else
            such masks are skipped.

    Returns:
        Images with label maps.

    Raises:
        DataError: If there is no table, or no mask.
    """
    table = table or next((source / name for name in TABLES if (source / name).is_file()), None)
    if table is None or not table.is_file():
        raise DataError(
            f'{table or source}: there is no table of colours; expected is {listed(TABLES)}, with '
            'lines such as road:128,64,128'
        )
    colors = read_table(table)
    names = list(classes or dict.fromkeys(colors.values()))
    unknown = sorted({*names} - {*colors.values()})
    if unknown:
        raise DataError(f'{table} has no colour for {listed(unknown)}, which --classes names')
    if len(names) > _UNKNOWN:
        raise DataError(f'{table} has {len(names)} classes; a label map holds {_UNKNOWN} at most')
    if background:
        names = [name for name in names if not is_background(name)]
    numbers = np.full(1 << 24, _UNKNOWN if not ignore_unknown else IGNORED, np.uint8)
    for (red, green, blue), name in colors.items():
        number = names.index(name) if name in names else IGNORED
        numbers[red << 16 | green << 8 | blue] = number
    left_out, images = LeftOut(), []
    masks, parts = _masks(source, mask_suffix, pictures), listed_parts(source, 'Segmentation')
    for index, (mask, name) in enumerate(masks.items()):
        progress('read', index + 1, len(masks))
        part = parts.get(str(name), parts.get(name.name))
        if part is None and len(name.parts) > 1:
            part = part_of(name.parts[0])
        try:
            images.append(_image(mask, name, part, pictures, numbers))
        except UnfitError as reason:
            left_out.skip(name, reason)
    return Found(images, names, left_out)


def read_table(path: Path) -> dict[tuple[int, int, int], str]:
    """Colours and their classes, in the order of a file.

    A line is ``name:r,g,b:...`` as CVAT writes it, ``name,r,g,b``, or ``r g b name``. Lines without
    a colour, and those that begin with ``#``, say nothing.

    Raises:
        DataError: If the file has no colour, or one for two classes.
    """
    found: dict[tuple[int, int, int], str] = {}
    for line in path.read_text(encoding='utf-8-sig').splitlines():
        pair = None if line.lstrip().startswith('#') else _color_and_name(line)
        if pair is None:
            continue
        color, name = pair
        if max(color) > 255:
            raise DataError(f'{path} has the colour {color}; expected are numbers up to 255')
        if found.get(color, name) != name:
            raise DataError(f'{path} has the colour {color} for {found[color]} and for {name}')
        found[color] = name
    if not found:
        raise DataError(f'{path} names no colour; expected are lines such as road:128,64,128')
    return found


def _color_and_name(line: str) -> tuple[tuple[int, ...], str] | None:
    if ':' in line:
        name, color = line.split(':')[:2]
        fields = color.split(',')
    else:
        fields = line.split(',') if ',' in line else line.split(maxsplit=3)
        ahead = len(fields) > 3 and _NUMBERS.fullmatch(fields[0].strip())
        name = fields.pop() if ahead else fields.pop(0)
    fields = [field.strip() for field in fields[:3]]
    if len(fields) < 3 or not all(map(_NUMBERS.fullmatch, fields)):
        return None
    return tuple(map(int, fields)), name.strip()


def _masks(source: Path, suffix: str, pictures: Pictures) -> dict[Path, PurePosixPath]:
    """Masks, each with the name of its picture, but for the ending."""
    places = [path for path in sorted(source.glob(f'**/{_FOLDER}')) if path.is_dir()]
    if not (places or suffix or pictures.elsewhere(source)):
        raise DataError(
            f'{source} has no folder {_FOLDER}, so its masks cannot be told from its pictures: '
            'name the folder of the pictures with --images, or the ending of the masks with '
            '--mask-suffix, for instance _mask.png'
        )
    found = {}
    for place in places or [source]:
        for path in files_below(place, _ENDINGS):
            if path.name.endswith(suffix) and (places or suffix or path not in pictures):
                stem = path.name[: -len(suffix)] if suffix else path.stem
                found[path] = PurePosixPath(*path.relative_to(place).parent.parts, stem)
    if not found:
        ending = f' whose name ends with {suffix}' if suffix else ''
        raise DataError(f'{source} has no mask{ending} ({", ".join(_ENDINGS)})')
    pictures.leave_out(found)
    for place in source.glob(f'**/{_OTHER_FOLDER}'):
        pictures.leave_out(files_below(place, _ENDINGS))
    return found


def _image(
    mask: Path, name: PurePosixPath, part: str | None, pictures: Pictures, numbers: np.ndarray
) -> AnnotatedImage:
    picture = pictures.find([name], mask.parent, part)
    if picture is None:
        raise UnfitError('its picture is not there')
    height, width = size_of(picture)
    check_size(size_of(mask), (height, width))
    if part_of(name.parts[0]) and len(name.parts) > 1:  # such as train_labels
        name = PurePosixPath(*name.parts[1:])
    image = AnnotatedImage(name.with_name(name.name + picture.suffix), height, width, part=part)
    image.picture, image.labels = picture, functools.partial(_labels, mask, numbers)
    return image


def _labels(mask: Path, numbers: np.ndarray) -> np.ndarray:
    with opened(mask) as picture:
        colors = np.asarray(picture.convert('RGB'), dtype=np.uint32)
    codes = colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]
    labels = numbers[codes]
    unknown = codes[labels == _UNKNOWN]
    if unknown.size:
        code = int(unknown[0])
        raise UnfitError(
            f'the mask has the colour {code >> 16},{code >> 8 & 255},{code & 255}, which the table '
            'does not name'
        )
    return labels
