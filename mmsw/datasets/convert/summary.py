"""What a conversion has made, in lines, and the ``own_data`` that trains on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..label_values import IGNORED
from .conversion import REPORT, Converted
from .parts import PARTS


def summary_lines(converted: Converted, out: Path) -> Iterator[str]:
    """Images, objects and pixels per part and class, and what was skipped and why."""
    for part in converted.images:
        yield f'{part}: {converted.images[part]} images'
        if 'coco' in converted.targets:
            counts = converted.objects[part]
            classes = enumerate(converted.found.classes)
            each = ', '.join(f'{name} {counts[index + 1]}' for index, name in classes)
            yield f'  {sum(counts.values())} objects: {each}'
        if 'label-maps' in converted.targets:
            counts = converted.pixels[part]
            whole = counts.sum()
            each = ', '.join(
                f'{name} {counts[value] / whole:.1%}' for value, name in enumerate(converted.values)
            )
            yield f'  pixels: {each}, ignored {counts[IGNORED] / whole:.1%}'
    yield from converted.found.left_out.lines()
    if converted.found.left_out.skipped:
        yield f'every name that was skipped is in {out / REPORT}'


def own_data_lines(converted: Converted, out: Path) -> Iterator[str]:
    """Settings for a config with own data, one for each form that was written."""
    parts = {
        'label-maps': dict(images='images/{}', labels='labels/{}'),
        'coco': dict(images='images/{}', annotations='annotations/{}.json'),
    }
    for target in converted.targets:
        base = 'own_segmentation_sw_t.py' if target == 'label-maps' else 'own_mask_rcnn_sw_t.py'
        yield f'# for configs/{base}'
        yield 'own_data = dict('
        yield f'    data_root={str(out)!r},'
        for part in PARTS:
            if part in converted.images:
                given = ', '.join(
                    f'{key}={text.format(part)!r}' for key, text in parts[target].items()
                )
                yield f'    {part}=dict({given}),'
            elif part == 'val' and 'test' in converted.images:
                yield '    # there are no validation images: convert again with --split 0.8 0.2'
            elif part == 'val':
                yield '    val=0.2,  # a fifth of the training images, held out'
        yield from _class_lines(converted, target)
        yield ')'


def _class_lines(converted: Converted, target: str) -> Iterator[str]:
    if target == 'label-maps':
        yield f'    classes={tuple(converted.values)!r},'
        suffixes = converted.suffixes
        yield f'    image_suffix={suffixes[0] if len(suffixes) == 1 else tuple(suffixes)!r},'
        yield "    label_suffix='.png',"
        return
    yield f'    classes={tuple(converted.found.classes)!r},'
    number = converted.boxes_only
    whole = sum(sum(counts.values()) for counts in converted.objects.values())
    if number:
        yield f'    masks=False,  # {number} of {whole} objects have a box and no outline'
