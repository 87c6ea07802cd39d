"""A report about data as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from mmsw.wording import listed

from .finding import ERROR, Finding, readable
from .statistics import SIZES, Labels, Statistics

_MOST_CLASSES = 60  # rows of a table
_MOST_DETAILS = 10  # files of one finding


def as_text(
    config: str,
    loaders: Sequence[Statistics],
    same: dict[str, str],
    findings: Sequence[Finding],
) -> str:
    """The report in lines: figures of every loader, then what was found."""
    lines = [f'data of {config}']
    for item in loaders:
        lines += ['', *_loader(item)]
    lines += [f'\n{name}: the data of {other}' for name, other in same.items()]
    lines.append('')
    lines += _findings(findings)
    errors = sum(item.level == ERROR for item in findings)
    warnings = len(findings) - errors
    lines.append(f'{_number(errors, "error")}, {_number(warnings, "warning")}')
    return readable('\n'.join(lines))


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    """One line each; what to do is said once."""
    said = set()
    for item in findings:
        yield item.line(item.cure not in said)
        said.add(item.cure)
        yield from (f'  {detail}' for detail in item.details[:_MOST_DETAILS])
        if len(item.details) > _MOST_DETAILS:
            yield f'  and {len(item.details) - _MOST_DETAILS} more'


def _loader(found: Statistics) -> Iterator[str]:
    kinds = listed(list(Counter(found.kinds)))
    yield f'{found.name}: {_number(found.images, "image")} ({kinds}), {found.read} read'
    if found.headers:
        yield f'  sizes     {_sizes(found)}'
        formats = Counter(f'{item.format} {item.mode}' for item in found.headers)
        loaded = f'; loaded as {_counted(found.loaded)}' if found.loaded else ''
        yield f'  files     {_counted(formats)}{loaded}'
        turned = Counter(item.orientation for item in found.headers if item.orientation != 1)
        if turned:
            kinds = listed([str(item) for item in sorted(turned)], 8)
            yield f'  EXIF      {sum(turned.values())} are to be shown turned (orientation {kinds})'
    if found.label_headers:
        yield f'  labels    {_counted(found.label_headers)}'
    if found.labels.maps:
        yield from _label_table(found)
    if found.objects.images:
        yield from _object_table(found)
    for reason, count in found.dropped.items():
        if count:
            yield f'  left out: {reason}: {count}'


def _label_table(found: Statistics) -> Iterator[str]:
    labels, total = found.labels, max(1, int(found.labels.pixels.sum()))
    rows = [
        (name, f'{share:.2%}', str(labels.with_label[index]))
        for index, (name, share) in enumerate(zip(found.classes[:255], found.shares, strict=False))
    ]
    rest = [label for label in np.flatnonzero(labels.pixels) if label >= len(found.classes)]
    rows = _shortened(rows)
    rows += [
        (
            f'{_kind(label, labels)} ({label})',
            f'{labels.pixels[label] / total:.2%}',
            str(labels.with_label[label]),
        )
        for label in rest[:20]
    ]
    yield from _table(('class', 'pixels', 'label maps'), rows)


def _kind(label: int, labels: Labels) -> str:
    if not labels.judged or label < labels.number:
        return 'label'
    return 'ignored' if label in labels.ignored else 'no class'


def _object_table(found: Statistics) -> Iterator[str]:
    objects = found.objects
    boxes = bool(objects.sizes)
    rows = []
    for index, name in enumerate(found.classes):
        sizes = objects.sizes.get(index, (0, 0, 0)) if boxes else ()
        rows.append(
            (name, *map(str, (objects.per_class[index], objects.with_class[index], *sizes)))
        )
    head = ('class', 'objects', 'images', *SIZES) if boxes else ('class', 'labels', 'images')
    yield from _table(head, _shortened(rows))
    if boxes:
        yield '  (sizes by box: small below 32 x 32 pixels, large from 96 x 96)'
    if objects.empty:
        yield f'  images without an object: {objects.empty} of {objects.images}'
    if objects.crowds:
        yield f'  ignored objects (crowds): {objects.crowds}'


def _shortened(rows: list[tuple]) -> list[tuple]:
    """Of many classes, those that there are; the second column counts."""
    if len(rows) <= _MOST_CLASSES:
        return rows
    shown = [row for row in rows if row[1] not in ('0', '0.00%')][:_MOST_CLASSES]
    rest = len(rows) - len(shown)
    return [*shown, (f'... and {rest} more', *[''] * (len(rows[0]) - 1))]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield f'  {"  ".join(cells)}'.rstrip()


def _sizes(found: Statistics) -> str:
    sizes = found.sizes
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        text = f'all {width} x {height}'
    else:
        sides = {
            side: sorted(getattr(item, side) for item in found.headers)
            for side in ('width', 'height')
        }
        text = f'{len(sizes)} sizes: ' + ', '.join(map(_range, sides, sides.values()))
    seen = len(found.headers)
    return text if seen == found.images else f'{text}, in the {seen} headers that were read'


def _range(side: str, values: list[int]) -> str:
    if values[0] == values[-1]:
        return f'{side} {values[0]}'
    return f'{side} {values[0]} to {values[-1]} (median {int(np.median(values))})'


def _counted(counts: Counter) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return listed([f'{key} ({count})' for key, count in counts.most_common()], 6)


def _number(count: int, noun: str) -> str:
    return f'{count:,} {noun}{"" if count == 1 else "s"}'
