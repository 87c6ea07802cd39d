"""Pictures in the layout of CamVid and BCCD, a few of each, for tests."""

from __future__ import annotations

from pathlib import Path
from shutil import move

import cv2
import numpy as np
from run_tool import tool

PARTS = {'train': 4, 'val': 1, 'test': 2}  # images
VOID = 11  # label value of CamVid that is no class
CELLS = {'RBC': (8, 12, 60, 62), 'WBC': (100, 40, 190, 140), 'Platelets': (220, 90, 240, 108)}


def make_camvid(root: Path) -> Path:
    """PNG images and label maps, each with all classes and with pixels that are void."""
    for part, number in PARTS.items():
        for index in range(number):
            _write_image(root / part / f'{index}.png', 48, 64)
            labels = np.arange(48 * 64).reshape(48, 64) // 4 % (VOID + 1)
            path = root / f'{part}annot' / f'{index}.png'
            path.parent.mkdir(exist_ok=True)
            assert cv2.imwrite(str(path), labels.astype(np.uint8))
    return root


def make_bccd(folder: Path) -> Path:
    """Converted from Pascal VOC and moved as docs/real_data.md says; one box has no area."""
    voc, out = folder / 'BCCD', folder / 'data'
    for kind in ('Annotations', 'ImageSets/Main'):
        (voc / kind).mkdir(parents=True)
    for part, number in PARTS.items():
        names = [f'BloodImage_{part}{index}' for index in range(number)]
        (voc / f'ImageSets/Main/{part}.txt').write_text('\n'.join(names) + '\n')
        for name in names:
            _write_image(voc / f'JPEGImages/{name}.jpg', 240, 320)
            (voc / f'Annotations/{name}.xml').write_text(_voc_text(name, CELLS))
    name = 'BloodImage_train0'
    (voc / f'Annotations/{name}.xml').write_text(_voc_text(name, CELLS | {'RBC': (9, 9, 9, 9)}))
    assert tool('convert_dataset', 'voc', voc, '--out', out, '--classes', *CELLS) == 1
    for pattern, to in (('annotations/*.json', out), ('images/*/*.jpg', out / 'images')):
        for path in out.glob(pattern):
            move(path, to)
    return out


def _write_image(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.randint(0, 256, (height, width, 3), dtype=np.uint8))


def _voc_text(name: str, boxes: dict[str, tuple[int, ...]]) -> str:
    corners = ('xmin', 'ymin', 'xmax', 'ymax')
    objects = ''.join(
        f'<object><name>{kind}</name><difficult>0</difficult><bndbox>'
        + ''.join(f'<{key}>{value}</{key}>' for key, value in zip(corners, box, strict=True))
        + '</bndbox></object>'
        for kind, box in boxes.items()
    )
    size = '<size><width>320</width><height>240</height><depth>3</depth></size>'
    return f'<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>'
