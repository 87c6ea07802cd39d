"""What is written of each image: a picture or a frame of a video, and a label map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmsw.whole_file import write_whole

from .inputs import Source
from .outcome import Outcome, label_type
from .overlay import colour_table
from .video import VideoFile


@dataclass(frozen=True)
class Seen:
    """An image, and what a model sees in it.

    Attributes:
        source: Where it comes from.
        frame: Its number in a video, from 0; ``None`` for an image.
        size: Height and width.
        outcome: What the model sees.
        picture: BGR, with the outcome drawn on it; ``None`` where no overlay is asked for.
    """

    source: Source
    frame: int | None
    size: tuple[int, int]
    outcome: Outcome
    picture: np.ndarray | None = None


class Writer:
    """Gets the images in order; those of a video follow each other."""

    def start(self, source: Source, fps: float) -> None:
        """A video begins; frames per second."""

    def write(self, seen: Seen) -> None:
        """An image comes."""

    def end(self, source: Source, whole: bool) -> None:
        """A video ends; ``whole`` is false if something stopped it before its end."""

    def close(self, keep: bool) -> None:
        """No more images come; ``keep`` is false if something stopped them before the first."""


class OverlayWriter(Writer):
    """Writes a picture per image, and a video per video, which is there once it is whole."""

    def __init__(self, paths: Mapping[Source, Path]) -> None:
        self._paths = paths
        self._video: VideoFile | None = None

    def start(self, source: Source, fps: float) -> None:
        self._video = VideoFile(self._paths[source], fps)

    def write(self, seen: Seen) -> None:
        if seen.frame is None:
            write_picture(self._paths[seen.source], seen.picture)
        else:
            self._video.write(seen.picture)

    def end(self, source: Source, whole: bool) -> None:
        video, self._video = self._video, None
        if whole:
            video.finish()
        else:
            video.abandon()


class LabelMapWriter(Writer):
    """Writes a PNG file of class indices per image or frame.

    With up to 256 classes a file has 8 bits and the colours of the classes as its palette; with
    more it has 16 bits and is grey.

    Args:
        paths: Source -> file; for a video, a folder of files with the numbers of the frames.
        palette: RGB colours of the classes.
    """

    def __init__(self, paths: Mapping[Source, Path], palette: Sequence[Sequence[int]]) -> None:
        self._paths = paths
        self._type = label_type(len(palette))
        self._colours = colour_table(palette, 256)[:256, ::-1].tobytes()
        self._frames = 0

    def write(self, seen: Seen) -> None:
        path = self._paths[seen.source]
        if seen.frame is not None:
            path, self._frames = path / _frame_name(seen.frame), seen.frame + 1
        labels = seen.outcome.labels
        picture = Image.fromarray(labels.astype(np.promote_types(labels.dtype, self._type)))
        if picture.mode == 'L':
            picture.putpalette(self._colours)
        write_whole(path, picture.save)

    def end(self, source: Source, whole: bool) -> None:
        """Take away what is left of a longer video that was predicted before."""
        while whole and (later := self._paths[source] / _frame_name(self._frames)).is_file():
            later.unlink()
            self._frames += 1
        self._frames = 0


def _frame_name(number: int) -> str:
    return f'{number:06d}.png'


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a BGR picture, PNG or JPEG by its suffix, whole or not at all."""
    _, content = cv2.imencode(path.suffix.lower(), picture)
    write_whole(path, lambda temporary: temporary.write_bytes(content.tobytes()))
