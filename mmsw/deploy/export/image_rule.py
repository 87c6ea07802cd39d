"""How an image becomes the input of an exported program: plain values that a file can hold."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]


@dataclass(frozen=True)
class ResizeRule:
    """What ``Resize`` of the toolboxes does, by its arguments.

    Attributes:
        scale: Width and height to resize to, or into; ``None`` where ``factor`` says.
        factor: Factors of width and height.
        keep_ratio: Whether the shape stays: the long side then goes into the greater number of
            ``scale``, and the short side into the other.
        interpolation: As ``mmcv.imresize`` calls it.
        backend: ``'cv2'`` or ``'pillow'``.
    """

    scale: Pair | None = None
    factor: tuple[float, float] | None = None
    keep_ratio: bool = False
    interpolation: str = 'bilinear'
    backend: str = 'cv2'

    def size(self, height: int, width: int) -> Pair:
        """Height and width that an image of a size is resized to."""
        if self.scale is not None and not self.keep_ratio:
            return self.scale[1], self.scale[0]
        scale = self.scale
        if scale is None:
            scale = (_rounded(width, self.factor[0]), _rounded(height, self.factor[1]))
            if not self.keep_ratio:
                return scale[1], scale[0]
        ratio = min(max(scale) / max(height, width), min(scale) / min(height, width))
        return _rounded(height, ratio), _rounded(width, ratio)


@dataclass(frozen=True)
class PadRule:
    """What ``Pad`` of the toolboxes does to the pixels at the right and below, by its arguments.

    Attributes:
        size: Width and height.
        size_divisor: Sides become multiples of it.
        pad_to_square: Whether the short side becomes as long as the other.
        value: Of the new pixels, before they are normalised.
    """

    size: Pair | None = None
    size_divisor: int | None = None
    pad_to_square: bool = False
    value: float | tuple[float, ...] = 0


@dataclass(frozen=True)
class BorderRule:
    """Zeros, or another value, that are put right of and below a normalised image.

    Attributes:
        size: Height and width that it has at least; ``None`` where the divisor alone says.
        divisor: Sides become multiples of it.
        value: Of the new pixels, after normalisation.
    """

    size: Pair | None = None
    divisor: int = 1
    value: float = 0.0

    def around(self, height: int, width: int) -> Pair:
        """Height and width with the border."""
        least = self.size or (0, 0)
        sides = zip((height, width), least, strict=True)
        return tuple(-(-max(side, other) // self.divisor) * self.divisor for side, other in sides)


@dataclass(frozen=True)
class ImageRule:
    """From an image file, or an array, to the input of a program.

    An image is read, resized, padded, put in the program's order of channels, normalised, and gets
    a border; what is ``None`` is left out.

    Attributes:
        channels: Of the program's input.
        color_type: How the file is read, as ``mmcv.imfrombytes`` calls it.
        decoder: What reads it, likewise.
        to_float32: Whether pixels are made float32 before they are resized.
        resize: Of the pixels.
        pad: Of the pixels.
        swap_channels: Whether the first of three channels and the last change places.
        mean: Of each channel, in the program's order.
        std: Of each channel.
        border: Of the normalised image.
        most: Height and width that an image is shrunk into after ``resize``, with its shape; those
            of a file for one size.
        meta_keys: What a data sample tells of its image.
    """

    channels: int
    color_type: str = 'color'
    decoder: str = 'cv2'
    to_float32: bool = False
    resize: ResizeRule | None = None
    pad: PadRule | None = None
    swap_channels: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    border: BorderRule | None = None
    most: Pair | None = None
    meta_keys: tuple[str, ...] = ()

    @property
    def channel_order(self) -> str:
        """``'RGB'`` or ``'BGR'`` of the program's input; other numbers of channels stay as read."""
        if self.channels != 3:
            return 'as read'
        return 'RGB' if self.swap_channels else 'BGR'

    def size(self, height: int, width: int) -> Pair:
        """Height and width that the pixels of an image of a size are resized to."""
        if self.resize is not None:
            height, width = self.resize.size(height, width)
        if self.most is not None and (height > self.most[0] or width > self.most[1]):
            ratio = min(self.most[0] / height, self.most[1] / width)
            height = min(self.most[0], _rounded(height, ratio))
            width = min(self.most[1], _rounded(width, ratio))
        return max(1, height), max(1, width)


def _rounded(side: int, factor: float) -> int:
    return int(side * float(factor) + 0.5)
