"""A picture of some images with their truth drawn on them, and the colours of the classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from mmsw.whole_file import write_whole

from .finding import readable
from .overlay import IGNORED, NO_CLASS, colors_of, drawn
from .reading import SampleReader
from .statistics import Statistics
from .survey import Survey

_COLUMNS, _CELL, _GAP = 4, (320, 240), 8  # cells: width, height in pixels
_LINE, _FONT = 22, 14
_TRAINING, _OTHERS = 12, 4  # images of a loader
_MOST_CLASSES = 120
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def write_contact_sheet(surveys: Sequence[Survey], path: Path) -> bool:
    """Write a PNG file with images of every loader.

    Args:
        surveys: With what is to be shown.
        path: The file to write.

    Returns:
        Whether there is something to show; without it no file is written.
    """
    blocks = [block for item in surveys for block in _blocks(item)]
    if not blocks:
        return False
    width = _COLUMNS * (_CELL[0] + _GAP) + _GAP
    sheet = Image.new('RGB', (width, sum(item.height for item in blocks) + _GAP), _WHITE)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    write_whole(path, lambda temporary: sheet.save(temporary))
    return True


def _blocks(survey: Survey) -> Iterator[Image.Image]:
    """Heading and images of a loader, then its legend."""
    statistics = survey.statistics
    most = _TRAINING if statistics.name.startswith('train') else _OTHERS
    cells = [
        cell for reader, index in survey.shown[:most] if (cell := _cell(reader, index, statistics))
    ]
    if not cells:
        return
    title = f'{statistics.name}: {len(cells)} of {statistics.images} images'
    rows = math.ceil(len(cells) / _COLUMNS)
    height = _CELL[1] + _LINE + _GAP
    block = _empty(_LINE + _GAP + rows * height)
    _write(block, (_GAP, _GAP), title)
    for number, cell in enumerate(cells):
        row, column = divmod(number, _COLUMNS)
        block.paste(cell, (_GAP + column * (_CELL[0] + _GAP), _LINE + _GAP + row * height))
    yield block
    yield _legend(statistics)


def _cell(reader: SampleReader, index: int, statistics: Statistics) -> Image.Image | None:
    sample = reader.read(index)
    if sample.image is None:
        return None
    picture = Image.fromarray(drawn(sample, reader.known, colors_of(statistics), _CELL))
    cell = Image.new('RGB', (_CELL[0], _CELL[1] + _LINE), (235, 235, 235))
    cell.paste(picture, ((_CELL[0] - picture.width) // 2, (_CELL[1] - picture.height) // 2))
    _write(
        cell, (2, _CELL[1] + 2), Path(str(sample.info.get('img_path', index))).name, _CELL[0] - 4
    )
    return cell


def _legend(statistics: Statistics) -> Image.Image:
    """Swatches of the classes; those without a pixel or object have their names in grey."""
    labels, objects = statistics.labels, statistics.objects
    entries: list[tuple[tuple[int, int, int], str, Any]] = []
    colors = colors_of(statistics)
    for index, name in enumerate(statistics.classes[:_MOST_CLASSES]):
        count = labels.pixels[index] if labels.maps and index < 256 else objects.per_class[index]
        entries.append((colors[index], f'{index} {name}', count))
    if labels.maps:
        entries += [(IGNORED, 'ignored', 1)]
        entries += [(NO_CLASS, 'no class', 1)] if labels.strange else []
    width = (_COLUMNS * (_CELL[0] + _GAP)) // 6
    rows = math.ceil(len(entries) / 6)
    block = _empty(rows * _LINE + 2 * _GAP)
    brush = ImageDraw.Draw(block)
    for number, (color, text, count) in enumerate(entries):
        row, column = divmod(number, 6)
        left, top = _GAP + column * width, row * _LINE
        brush.rectangle((left, top + 3, left + 16, top + 17), fill=color, outline=_BLACK)
        _write(block, (left + 22, top + 2), text, width - 26, _BLACK if count else (150, 150, 150))
    return block


def _empty(height: int) -> Image.Image:
    return Image.new('RGB', (_COLUMNS * (_CELL[0] + _GAP) + _GAP, height), _WHITE)


def _write(
    picture: Image.Image,
    place: tuple[int, int],
    text: str,
    width: int | None = None,
    color: tuple[int, int, int] = _BLACK,
) -> None:
    """Write a line; of one that is too long, the end is left out."""
    font = ImageFont.truetype(str(Path(get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), _FONT)
    text = readable(text)
    if width is not None and font.getlength(text) > width:
        while text and font.getlength(f'{text}...') > width:
            text = text[:-1]
        text = f'{text}...'
    ImageDraw.Draw(picture).text(place, text, fill=color, font=font)
