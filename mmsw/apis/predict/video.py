"""Frames of videos and cameras, and videos that are whole or absent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmsw.errors import DataError, UsageError
from mmsw.whole_file import WholeFile

from .inputs import Source

_FPS = 25.0  # where a video or a camera tells none that can be
_MISSING = 0.9  # share of the frames that a file speaks of, below which it is cut short


@dataclass
class Frames:
    """A video or a camera, opened.

    Attributes:
        source: Where frames come from.
        fps: Frames per second.
        count: Number of frames that the file speaks of; 0 where it is unknown.
        read: Number of frames so far.
    """

    source: Source
    fps: float
    count: int
    read: int
    _capture: cv2.VideoCapture

    @classmethod
    def open(cls, source: Source) -> Frames:
        """Open a video file or a camera.

        Raises:
            DataError: If it cannot be opened.
        """
        camera = source.kind == 'camera'
        capture = cv2.VideoCapture(int(source.path.split(':')[1]) if camera else source.path)
        if not capture.isOpened():
            what = 'is not there, or in use' if camera else 'is no video that OpenCV can read'
            raise DataError(f'{source.path} {what}')
        fps, count = (capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        fps = fps if math.isfinite(fps) and 0.1 <= fps <= 1000 else _FPS
        count = 0 if camera or not 0 < count < 1e9 else int(count)
        return cls(source, fps, count, 0, capture)

    def __iter__(self) -> Iterator[np.ndarray]:
        """BGR frames, uint8, ``[H, W, 3]``.

        Raises:
            DataError: At the end, if there was no frame, or far fewer than the file speaks of.
        """
        try:
            while True:
                there, frame = self._capture.read()
                if not there:
                    break
                self.read += 1
                yield frame
        finally:
            self._capture.release()
        if not self.read:
            raise DataError(f'{self.source.path} has no frame that can be read')
        if self.read < _MISSING * self.count:
            raise DataError(
                f'{self.source.path} is damaged: {self.read} of about {self.count} frames can be '
                'read'
            )


class VideoFile:
    """Writes frames to an MP4 file, which is there once it is finished.

    Args:
        path: File to write, ``.mp4``.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._file = WholeFile(path)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, picture: np.ndarray) -> None:
        """Add a frame, BGR, uint8, ``[H, W, 3]``; all get the size of the first.

        Raises:
            UsageError: If OpenCV cannot write videos here.
        """
        size = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            self._size, code = size, cv2.VideoWriter_fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._file.temporary), code, self._fps, size)
            if not self._writer.isOpened():
                raise UsageError(
                    f'{self._path} cannot be written: this OpenCV has no encoder for MP4 videos'
                )
        if size != self._size:
            picture = cv2.resize(picture, self._size)
        self._writer.write(picture)

    def finish(self) -> None:
        """Give the file its name, if there is a frame in it."""
        if self._writer is not None:
            self._writer.release()
            if self._file.temporary.is_file():
                self._file.finish()
        self.abandon()

    def abandon(self) -> None:
        """Leave nothing, unless the file is finished."""
        if self._writer is not None:
            self._writer.release()
        self._file.abandon()
