"""Converting a whole source into a folder that the configs for own data read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmsw.errors import DataError, UnfitError, UsageError
from mmsw.json_file import read_json, write_json

from ..label_values import IGNORED
from .annotated import BACKGROUND, IGNORE, AnnotatedImage, Found, Progress
from .coco import read_coco
from .coco_file import coco_content, write_coco
from .colors import read_colors
from .label_map_files import class_values, drawn_labels, is_background, write_labels
from .labelme import read_labelme
from .parts import PARTS, check_shares, divide
from .pictures import Pictures
from .voc import read_voc

REPORT = 'conversion.json'
TARGETS = {  # what each kind of source can become; the first unless asked otherwise
    'voc': ('coco',),
    'labelme': ('coco', 'label-maps'),
    'coco': ('label-maps', 'coco'),
    'colors': ('label-maps',),
}
_READERS: dict[str, Callable[..., Found]] = {
    'voc': read_voc,
    'labelme': read_labelme,
    'coco': read_coco,
    'colors': read_colors,
}


@dataclass
class Request:
    """What to convert, and how.

    Attributes:
        kind: One of ``TARGETS``.
        source: Folder, or file for COCO.
        out: Folder to make.
        to: Some of what ``TARGETS`` has for the kind; empty for the first.
        images: Folders with the pictures; empty for the source.
        classes: Names of the classes; ``None`` for those of the source.
        background: Value of pixels without an object, 0 or 255.
        split: Shares of training, validation and testing; ``None`` for the parts of the source.
        seed: For the split.
        link: Make symbolic links to the pictures instead of copies.
        force: Replace a folder that was made by an earlier conversion.
        crowds_as_objects: Take crowds and difficult objects for ordinary ones.
        settings: Further arguments of the reader of the kind.
    """

    kind: str
    source: Path
    out: Path
    to: Sequence[str] = ()
    images: Sequence[Path] = ()
    classes: Sequence[str] | None = None
    background: int = 0
    split: Sequence[float] | None = None
    seed: int = 0
    link: bool = False
    force: bool = False
    crowds_as_objects: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Converted:
    """What was written.

    Attributes:
        found: All of the source.
        targets: ``'coco'``, ``'label-maps'`` or both.
        values: Names of the classes in the order of the values of label maps.
        images: Number of images per part.
        objects: Number of objects per part and class.
        pixels: Number of pixels per part and value of the label maps.
        boxes_only: Number of objects without an outline.
        suffixes: Endings of the pictures.
    """

    found: Found
    targets: tuple[str, ...]
    values: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    objects: dict[str, Counter] = field(default_factory=dict)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    boxes_only: int = 0
    suffixes: list[str] = field(default_factory=list)


def convert(request: Request, progress: Progress) -> Converted:
    """Convert; the folder is whole or absent afterwards.

    Args:
        request: What to convert.
        progress: Told what is done.

    Returns:
        What was written.

    Raises:
        UsageError: If the request makes no sense.
        DataError: If there is nothing that can be converted.
    """
    targets = _checked(request)
    pictures = Pictures(request.images or [_folder(request.source)])
    settings = dict(request.settings)
    if request.kind == 'colors':
        settings['background'] = request.background
    found = _READERS[request.kind](request.source, pictures, progress, request.classes, **settings)
    if request.crowds_as_objects:
        for item in (item for image in found.images for item in image.objects):
            item.crowd = False
    _keep_asked(found)
    _check_outlines(found, targets)
    divide(found.images, request.split, request.seed)
    _name_apart(found)
    converted = Converted(found, targets)
    with tempfile.TemporaryDirectory(prefix=f'.{request.out.name}.', dir=_parent(request)) as place:
        new = Path(place, 'new')
        new.mkdir()
        _write(new, converted, request, progress)
        write_json(new / REPORT, 'conversion', _report(converted, request))
        _put(new, request.out, Path(place, 'old'))
    return converted


def _put(new: Path, out: Path, old: Path) -> None:
    """Move a folder to its place, and what is there to another one; if that fails, back again."""
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(new, out)
    except OSError:
        if old.exists():
            os.replace(old, out)
        raise


def _folder(source: Path) -> Path:
    return source.parent if source.is_file() else source


def _parent(request: Request) -> Path:
    request.out.parent.mkdir(parents=True, exist_ok=True)
    return request.out.parent


def _checked(request: Request) -> tuple[str, ...]:
    """What to make, in a fixed order."""
    kind, source, out = request.kind, request.source, request.out
    for path in (source, *request.images):
        if not path.exists():
            raise UsageError(f'{path} does not exist')
    if source.is_file() and kind != 'coco':
        raise UsageError(f'{source} is a file, expected a folder')
    check_shares(request.split)
    legal = TARGETS[kind]
    for target in request.to:
        if target not in legal:
            raise UsageError(f'--to {target}: {kind} can become {" and ".join(legal)} only')
    if request.classes and len(set(request.classes)) < len(request.classes):
        raise UsageError(f'--classes {" ".join(request.classes)}: a name stands twice')
    if out.resolve().is_relative_to(_folder(source).resolve()):
        raise UsageError(f'--out {out} lies in {_folder(source)}: name a folder outside of it')
    if _folder(source).resolve().is_relative_to(out.resolve()):
        raise UsageError(f'--out {out} holds {source}: name another folder')
    for folder in request.images:  # what is in OUT is replaced
        if folder.resolve().is_relative_to(out.resolve()):
            raise UsageError(f'--images {folder} lies in --out {out}: name another folder')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out.is_dir() and read_json(out / REPORT, 'conversion')):
            raise UsageError(
                f'--out {out} exists and holds something else than a converted data set: name '
                'another folder'
            )
        if not request.force:
            raise UsageError(f'--out {out} exists: name another folder, or replace it with --force')
    return tuple(item for item in ('coco', 'label-maps') if item in (request.to or legal[:1]))


def _keep_asked(found: Found) -> None:
    """Leave out objects of classes that are not asked for; what means no class is kept."""
    for image in found.images:
        kept = []
        for item in image.objects:
            if item.label in found.classes or item.label == IGNORE or is_background(item.label):
                kept.append(item)
            else:
                found.left_out.note(item.label, 'object of a class that is not asked for')
        image.objects = kept


def _check_outlines(found: Found, targets: tuple[str, ...]) -> None:
    objects = [item for image in found.images for item in image.objects]
    if 'label-maps' in targets and objects and all(item.outline is None for item in objects):
        raise DataError(
            f'none of the {len(objects)} objects has an outline, only boxes, from which no label '
            'map can be drawn: make COCO JSON for a detector, with --to coco'
        )


def _name_apart(found: Found) -> None:
    """Sort the images, and leave out those whose name another one of the part has."""
    kept, taken = [], set()
    for image in sorted(found.images, key=lambda item: (PARTS.index(item.part), str(item.name))):
        image.name = image.name.with_suffix(image.name.suffix.lower())
        key = image.part, str(image.name.with_suffix('')).lower()
        if key in taken:
            found.left_out.skip(image.name, 'another image has this name')
        else:
            taken.add(key)
            kept.append(image)
    found.images = kept


def _write(new: Path, converted: Converted, request: Request, progress: Progress) -> None:
    found, kept = converted.found, []
    names, numbers = class_values(found.classes, request.background)
    if request.kind == 'colors':  # the values are those of the table
        names = found.classes
    if 'coco' in converted.targets:
        found.classes = [name for name in found.classes if name != BACKGROUND]  # no object
    if 'label-maps' in converted.targets:
        if len(names) > IGNORED:
            raise DataError(f'{len(names)} classes; label maps hold {IGNORED} at most')
        converted.values = names
    for index, image in enumerate(found.images):
        progress('written', index + 1, len(found.images))
        try:
            if 'label-maps' in converted.targets:
                _write_label_map(new, image, converted, numbers, request.background)
        except UnfitError as reason:
            found.left_out.skip(image.name, reason)
            continue
        _place_picture(new, image, request.link)
        kept.append(image)
    found.images = kept
    if not kept:
        raise DataError(f'{request.source}: no image could be converted: {_why(found)}')
    converted.images = dict(Counter(image.part for image in kept))
    converted.suffixes = sorted({image.name.suffix for image in kept})
    for part in converted.images if 'coco' in converted.targets else ():
        content = coco_content(
            [image for image in kept if image.part == part], found.classes, found.left_out
        )
        write_coco(new / 'annotations' / f'{part}.json', content)
        items = content['annotations']
        converted.objects[part] = Counter(item['category_id'] for item in items)
        converted.boxes_only += sum('segmentation' not in item for item in items)


def _why(found: Found) -> str:
    return '; '.join(found.left_out.lines()) or 'there is none'


def _write_label_map(
    new: Path,
    image: AnnotatedImage,
    converted: Converted,
    numbers: dict[str, int],
    background: int,
) -> None:
    if image.labels is not None:
        labels = image.labels()
    else:
        labels = drawn_labels(image, numbers, background, converted.found.left_out)
    counts = converted.pixels.setdefault(image.part, np.zeros(256, np.int64))
    counts += np.bincount(labels.ravel(), minlength=256)
    write_labels(new / 'labels' / image.part / image.name.with_suffix('.png'), labels)


def _place_picture(new: Path, image: AnnotatedImage, link: bool) -> None:
    path = new / 'images' / image.part / image.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.content is not None:
        path.write_bytes(image.content)
    elif link:
        path.symlink_to(image.picture.resolve())
    else:
        shutil.copyfile(image.picture, path)


def _report(converted: Converted, request: Request) -> dict[str, Any]:
    left_out = converted.found.left_out
    return dict(
        kind=request.kind,
        targets=list(converted.targets),
        classes=converted.found.classes,
        values=converted.values,
        images=converted.images,
        skipped=dict(sorted(left_out.skipped.items())),
        left_out={reason: dict(Counter(names)) for reason, names in sorted(left_out.notes.items())},
    )
