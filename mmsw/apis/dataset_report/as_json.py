"""A report about data as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .finding import Finding, readable
from .label_findings import class_weights
from .statistics import SIZES, Statistics
from .survey import Extent


def as_json(
    config: str,
    extent: Extent,
    loaders: Sequence[Statistics],
    same: dict[str, str],
    findings: Sequence[Finding],
) -> dict[str, Any]:
    """What ``dataset_report.json`` holds; see ``docs/data.md``."""
    return dict(
        config=config,
        extent=asdict(extent),
        loaders={
            **{item.name: _loader(item) for item in loaders},
            **{name: dict(same_as=other) for name, other in same.items()},
        },
        findings=[_readable(asdict(item)) for item in findings],
    )


def _loader(found: Statistics) -> dict[str, Any]:
    return dict(
        datasets=found.kinds,
        images=found.images,
        headers=len(found.headers),
        read=found.read,
        complete=found.complete,
        widths=_range([item.width for item in found.headers]),
        heights=_range([item.height for item in found.headers]),
        formats=_plain(Counter(f'{item.format} {item.mode}' for item in found.headers)),
        orientations=_plain(Counter(str(item.orientation) for item in found.headers)),
        loaded_as=_plain(found.loaded),
        label_map_formats=_plain(found.label_headers),
        label_maps=_labels(found) if found.labels.maps else None,
        objects=_objects(found) if found.objects.images else None,
        left_out=_plain(found.dropped),
        broken=[_readable(dict(file=path, problem=text)) for path, text in found.broken],
    )


def _labels(found: Statistics) -> dict[str, Any]:
    labels, number = found.labels, len(found.classes)
    counts = labels.pixels[:number].tolist()
    rest = {
        str(label): int(labels.pixels[label])
        for label in np.flatnonzero(labels.pixels).tolist()
        if label >= number
    }
    weights = class_weights(counts)
    classes = [
        dict(
            name=name,
            pixels=counts[index],
            share=found.shares[index],
            label_maps=int(labels.with_label[index]),
            class_weight=weights[index],
        )
        for index, name in enumerate(found.classes[:256])
    ]
    return dict(read=labels.maps, classes=classes, other_labels=rest)


def _objects(found: Statistics) -> dict[str, Any]:
    objects = found.objects
    classes = [
        dict(
            name=name,
            objects=objects.per_class[index],
            images=objects.with_class[index],
            **dict(zip(SIZES, objects.sizes.get(index, (0, 0, 0)), strict=True)),
        )
        for index, name in enumerate(found.classes)
    ]
    return dict(
        images=objects.images,
        images_without_object=objects.empty,
        ignored=objects.crowds,
        complete=found.objects_complete,
        classes=classes,
    )


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [readable(item) for item in value]
    return readable(value)


def _range(values: list[int]) -> dict[str, int] | None:
    if not values:
        return None
    return dict(least=min(values), median=int(np.median(values)), most=max(values))


def _plain(counts: Counter) -> dict[str, int]:
    return {str(key): int(count) for key, count in counts.most_common() if count}
