"""Classes of the pixels of a large image, from logits of windows that blend into each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from .outcome import ClassMap, label_type
from .windows import Span, spans

LogitsOf = Callable[[Iterable[np.ndarray]], Iterator[Tensor]]


def segment_in_windows(
    image: np.ndarray,
    window: tuple[int, int],
    overlap: float,
    logits_of: LogitsOf,
    threshold: float | None = None,
) -> ClassMap:
    """Classify the pixels of an image window by window.

    Where windows overlap, their logits are averaged, with shares that change smoothly from one to
    the other. Held at a time are the logits of a row of windows where it overlaps with the next one
    (classes x overlap x width of the image), and of one batch of windows.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``.
        window: Height and width.
        overlap: Least share of a window that it has in common with its neighbour, 0 to 0.5.
        logits_of: Gives ``[classes, h, w]`` for each window, in order.
        threshold: Of a single channel, above which a pixel is of class 1; ``None`` for the channel
            with the greatest logit.
    """
    height, width = image.shape[:2]
    columns = spans(width, window[1], overlap)
    labels: np.ndarray | None = None
    edge: Tensor | None = None  # of the row above, where it blends into this one
    for row in spans(height, window[0], overlap):
        crops = (image[row.start : row.stop, span.start : span.stop] for span in columns)
        for column, part in blended_row(row, columns, logits_of(crops)):
            if labels is None:
                labels = np.zeros((height, width), label_type(max(2, len(part))))
            if edge is None:
                edge = part.new_zeros(len(part), row.end - row.own_end, width)
            where = slice(column.begin, column.own_end)
            top, bottom = row.own_begin - row.begin, row.own_end - row.begin
            part[:, :top] += edge[:, :top, where]
            edge[:, : part.shape[1] - bottom, where] = part[:, bottom:]
            classes = _classes(part[:, :bottom], threshold).cpu().numpy()
            labels[row.begin : row.own_end, where] = classes
    return ClassMap(labels)


def blended_row(
    row: Span, columns: list[Span], all_logits: Iterator[Tensor]
) -> Iterator[tuple[Span, Tensor]]:
    """Blend the windows of a row.

    Args:
        row: Where they are from top to bottom.
        columns: Where they are from left to right.
        all_logits: ``[classes, h, w]`` of each.

    Yields:
        A window and the weighted logits ``[classes, row.end - row.begin, ...]`` of its columns up
        to those that the next one has a share in, which come with that.
    """
    right: Tensor | None = None
    for column, logits in zip(columns, all_logits, strict=True):
        part = logits[
            :,
            row.begin - row.start : row.end - row.start,
            column.begin - column.start : column.end - column.start,
        ].float()
        down, across = (torch.from_numpy(span.share()).to(part.device) for span in (row, column))
        part = part * (down[:, None] * across)
        if right is not None:
            part[..., : right.shape[-1]] += right
        finished = column.own_end - column.begin
        right = part[..., finished:].clone()
        yield column, part[..., :finished]


def _classes(logits: Tensor, threshold: float | None) -> Tensor:
    return logits.argmax(0) if threshold is None else logits[0] > threshold
