"""Write the demonstration data set: the same scenes in ADE20K and in COCO instance layout.

See :mod:`mmsw.demo.compose` for what the scenes show and how they are split.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mmsw.errors import UsageError
from mmsw.json_file import read_json, write_json

from .compose import (
    TRAIN_PHOTOS,
    VAL_PHOTOS,
    Scene,
    SceneObject,
    Sources,
    compose_scene,
    load_sources,
    plan_scenes,
    source_versions,
)

CLASSES: tuple[str, ...] = ('background', *(f'digit {digit}' for digit in range(10)))
PALETTE: list[list[int]] = [  # RGB, one per class
    [90, 90, 90],
    [230, 25, 75],
    [60, 180, 75],
    [255, 225, 25],
    [0, 130, 200],
    [245, 130, 48],
    [145, 30, 180],
    [70, 240, 240],
    [240, 50, 230],
    [170, 110, 40],
    [250, 190, 212],
]
COCO_CLASSES: tuple[str, ...] = CLASSES[1:]

INFO_FILE = 'demo_data.json'
_SCENES = 1  # raise it when the same settings give other scenes
_SIZE_RANGE = (96, 1024)
_SPLITS = (('train', 'training'), ('val', 'validation'))  # short name, ADE20K folder
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class DemoData:
    """A demonstration data set on disk.

    Attributes:
        path: The folder.
        reused: Whether it was there already, made with the same settings.
        counts: Per split: images, images without an object, objects, objects per class.
    """

    path: Path
    reused: bool
    counts: dict[str, dict]


def make_demo_data(
    out_dir: str | os.PathLike,
    num_train: int = 600,
    num_val: int = 60,
    size: int = 160,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> DemoData:
    """Write the data set, or leave it alone if it is there with the same settings.

    The folder appears complete or not at all: the work happens in a temporary sibling. The same
    settings give the same bytes with the same packages (releases of OpenCV round differently, which
    moves single pixels). Global random states are neither used nor changed.

    Args:
        out_dir: Folder to make; gets ``ADEChallengeData2016``, ``coco`` and ``demo_data.json``.
        num_train: Number of training scenes, at least 1.
        num_val: Number of validation scenes, at least 1.
        size: Side of the square scenes in pixels, 96 to 1024.
        seed: Non-negative integer.
        force: Replace a data set that this function made, whatever its settings.
        progress: Called as ``progress(split, scenes_done, scenes_in_split)`` after each scene.

    Raises:
        ValueError: An argument is out of range.
        FileExistsError: ``out_dir`` holds something else, or was made with other settings.
        ImportError: scikit-image, scikit-learn or imgviz is absent.
    """
    settings = {'num_train': num_train, 'num_val': num_val, 'size': size, 'seed': seed}
    _check_settings(settings)
    out_dir = Path(out_dir).expanduser().resolve()
    existing = _inspect_existing(out_dir, settings, force)
    if existing is not None:
        return existing

    sources = load_sources()
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f'.{out_dir.name}.', suffix='.tmp', dir=out_dir.parent
    ) as scratch:
        build = Path(scratch, 'new')
        build.mkdir()
        counts = _write_data(build, sources, settings, progress)
        info = {
            'scenes': _SCENES,
            'settings': settings,
            'counts': counts,
            'photos': {'train': list(TRAIN_PHOTOS), 'val': list(VAL_PHOTOS)},
            'packages': source_versions(),
        }
        write_json(build / INFO_FILE, 'demo_data', info)
        _replace_folder(build, out_dir, Path(scratch, 'old'))
    return DemoData(out_dir, False, counts)


def _replace_folder(new: Path, target: Path, old: Path) -> None:
    """Put ``new`` in the place of ``target``, which moves to ``old`` if it exists."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise


def _check_settings(settings: dict[str, int]) -> None:
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f'{name} must be an integer, got {value!r}')
    for name in ('num_train', 'num_val'):
        if settings[name] < 1:
            raise ValueError(f'{name} must be at least 1, got {settings[name]}')
    low, high = _SIZE_RANGE
    if not low <= settings['size'] <= high:
        raise ValueError(f'size must be between {low} and {high} pixels, got {settings["size"]}')
    if settings['seed'] < 0:
        raise ValueError(f'seed must not be negative, got {settings["seed"]}')


def _inspect_existing(out_dir: Path, settings: dict[str, int], force: bool) -> DemoData | None:
    """Return the data set at ``out_dir`` if it can stay, None if the place may be (over)written."""
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return None
    try:
        info = read_json(out_dir / INFO_FILE, 'demo_data')
        found, counts = info['settings'], info['counts']
        version = info.get('scenes', 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f': {error}' if isinstance(error, UsageError) else ''  # of another kind, newer
        raise FileExistsError(
            f'{out_dir} exists but holds no demo data (no valid {INFO_FILE}{reason}); '
            'choose another folder or remove it yourself'
        ) from None
    if force:
        return None
    advice = 'choose another folder or pass --force (force=True) to replace it'
    if found != settings:
        differences = ', '.join(
            f'{name} {found.get(name)} instead of {value}'
            for name, value in settings.items()
            if found.get(name) != value
        )
        raise FileExistsError(f'{out_dir} was made with other settings ({differences}); {advice}')
    if version != _SCENES:
        raise FileExistsError(f'{out_dir} was made by another version of mmsw; {advice}')
    for file in _expected_files(settings):
        if not (out_dir / file).is_file():
            raise FileExistsError(f'{out_dir} is incomplete, {file} is missing; {advice}')
    return DemoData(out_dir, True, counts)


def _ade_files(split: str, index: int) -> tuple[str, str]:
    """Image and annotation of scene ``index`` (from 0), relative to the data set."""
    folder = dict(_SPLITS)[split]
    name = f'{folder}/ADE_{split}_{index + 1:08d}'
    root = 'ADEChallengeData2016'
    return f'{root}/images/{name}.jpg', f'{root}/annotations/{name}.png'


def _coco_image(split: str, index: int) -> str:
    return f'coco/{split}2017/{index + 1:012d}.jpg'


def _coco_annotations(split: str) -> str:
    return f'coco/annotations/instances_{split}2017.json'


def _expected_files(settings: dict[str, int]) -> list[str]:
    files = ['ADEChallengeData2016/objectInfo150.txt', 'ADEChallengeData2016/sceneCategories.txt']
    for split, _ in _SPLITS:
        files.append(_coco_annotations(split))
        for index in range(settings[f'num_{split}']):
            files += [*_ade_files(split, index), _coco_image(split, index)]
    return files


@dataclass
class _Tally:
    """Running counts for objectInfo150.txt: labelled pixels, and images that show a class."""

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    images: dict[str, np.ndarray] = field(
        default_factory=lambda: {s: np.zeros(len(CLASSES), np.int64) for s, _ in _SPLITS}
    )

    def add(self, split: str, label_map: np.ndarray) -> None:
        pixels = np.bincount(label_map.ravel(), minlength=len(CLASSES) + 1)[1:]
        self.pixels += pixels
        self.images[split] += pixels > 0


def _write_data(
    root: Path,
    sources: Sources,
    settings: dict[str, int],
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, dict]:
    """Write both layouts below ``root``; returns the counts."""
    for folder in sorted({(root / file).parent for file in _expected_files(settings)}):
        folder.mkdir(parents=True, exist_ok=True)
    tally, categories, counts = _Tally(), [], {}
    for code, (split, _) in enumerate(_SPLITS):
        plans = plan_scenes(sources, split, settings[f'num_{split}'], settings['seed'])
        coco: dict[str, list] = {'images': [], 'annotations': []}
        for index, plan in enumerate(plans):
            rng = np.random.default_rng((settings['seed'], code, index))
            scene = compose_scene(sources, plan, settings['size'], rng)
            image_file, label_file = _ade_files(split, index)
            _write_image(root / image_file, scene.image)
            _write_image(root / label_file, scene.label_map)
            _link_or_copy(root / image_file, root / _coco_image(split, index))
            tally.add(split, scene.label_map)
            categories.append(f'{Path(image_file).stem} {scene.photo}\n')
            _add_to_coco(coco, scene, Path(_coco_image(split, index)).name)
            if progress is not None:
                progress(split, index + 1, len(plans))
        document = json.dumps(_coco_document(split, coco), allow_nan=False)
        (root / _coco_annotations(split)).write_text(document + '\n', encoding='utf-8')
        counts[split] = _count(coco)
    ade = root / 'ADEChallengeData2016'
    (ade / 'sceneCategories.txt').write_text(''.join(categories), encoding='utf-8')
    (ade / 'objectInfo150.txt').write_text(_object_info(tally), encoding='utf-8')
    return counts


def _object_info(tally: _Tally) -> str:
    """ADE20K's class table; Ratio is a class's share of all labelled pixels."""
    lines = ['Idx\tRatio\tTrain\tVal\tStuff\tName\n']
    ratios = tally.pixels / tally.pixels.sum()
    for i, name in enumerate(CLASSES):
        train, val = (tally.images[split][i] for split, _ in _SPLITS)
        lines.append(f'{i + 1}\t{ratios[i]:.4f}\t{train}\t{val}\t{int(i == 0)}\t{name}\n')
    return ''.join(lines)


def _add_to_coco(coco: dict[str, list], scene: Scene, file_name: str) -> None:
    """Append a scene; beyond COCO's keys, ``photo`` and ``digit_sample`` tell its origin."""
    height, width = scene.label_map.shape
    image_id = len(coco['images']) + 1
    coco['images'].append(
        {
            'id': image_id,
            'file_name': file_name,
            'height': height,
            'width': width,
            'photo': scene.photo,
        }
    )
    for item in scene.objects:
        coco['annotations'].append(
            {
                'id': len(coco['annotations']) + 1,
                'image_id': image_id,
                'category_id': item.digit + 1,
                'segmentation': {'size': [height, width], 'counts': _run_lengths(item.mask)},
                'area': int(item.mask.sum()),
                'bbox': _box(item),
                'iscrowd': 0,
                'digit_sample': item.sample,
            }
        )


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths of a bool mask [H, W]: column by column, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order='F')])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


def _box(item: SceneObject) -> list[int]:
    """Tight [x, y, width, height] in pixels."""
    rows, columns = np.nonzero(item.mask)
    x, y = int(columns.min()), int(rows.min())
    return [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]


def _coco_document(split: str, coco: dict[str, list]) -> dict:
    categories = [
        {'id': i + 1, 'name': name, 'supercategory': 'digit'} for i, name in enumerate(COCO_CLASSES)
    ]
    info = {
        'description': f'mmsw demonstration scenes, {split}',
        'version': str(_SCENES),
    }
    return {'info': info, 'licenses': [], 'categories': categories, **coco}


def _count(coco: dict[str, list]) -> dict:
    with_objects = {a['image_id'] for a in coco['annotations']}
    labels = [a['category_id'] - 1 for a in coco['annotations']]
    per_class = np.bincount(labels, minlength=len(COCO_CLASSES)).tolist()
    return {
        'images': len(coco['images']),
        'images_without_objects': len(coco['images']) - len(with_objects),
        'objects': len(coco['annotations']),
        'objects_per_class': dict(zip(COCO_CLASSES, per_class, strict=True)),
    }


def _write_image(path: Path, image: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == '.jpg' else []
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f'cannot write {path}; is the disk full?')


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
