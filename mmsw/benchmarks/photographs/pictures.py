"""Pictures of the trained networks: predictions, receptive fields, accuracy over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmsw.analysis.receptive_field.plot import draw_receptive_fields
from mmsw.apis import inference, init_model, load_config, register_toolbox
from mmsw.apis.receptive_field import Contender, FieldSettings, measure_receptive_fields
from mmsw.component_name import component_name
from mmsw.demo.picture import PictureRow, Tile, draw_scenes, paint
from mmsw.demo.tiles import Objects
from mmsw.figure import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, SKY, SOFT, picture
from mmsw.whole_file import write_whole

from ..runs import CONFIG, FINAL
from .page import network_title
from .plan import OTHERS, SHIFT_WISE
from .results import rows_of

# Of the picture of accuracy over time; the other pruned networks lie where these two do.
_TRADED = (SHIFT_WISE, 'sw_mini_dynamic70_camvid', 'sw_mini_dynamic90_camvid', *OTHERS)
_COLOURS = (BLUE, SKY, PURPLE, GREEN, RED, ORANGE, GREY, INK)
_SIZE = 224  # side of the squares that receptive fields are measured on
_IMAGES = 12
_SHOWN = 4


class TestImages:
    """Images and truth that a finished run was scored on.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._set = _test_set(load_config(folder / CONFIG))
        self.classes = self._set.metainfo['classes']
        self.palette = np.asarray(self._set.metainfo['palette'], float)

    def __len__(self) -> int:
        return len(self._set)

    def path(self, index: int) -> str:
        """Of an image."""
        return self._set.get_data_info(index)['img_path']

    def truth(self, index: int) -> np.ndarray:
        """Class of every pixel of the file, ``[H, W]``; 255 where there is none."""
        return self._set[index]['data_samples'].gt_sem_seg.data[0].numpy()


def predicted(model: nn.Module, path: str) -> np.ndarray:
    """Class of every pixel of an image file, ``[H, W]``."""
    return inference(model, path).pred_sem_seg.data[0].cpu().numpy()


def draw_predictions(runs: Mapping[str, Path], path: Path, maps: Path) -> None:
    """Some test images, their truth, and what networks make of them.

    Args:
        runs: Title of a network -> folder of its run; all of one data set.
        path: PNG to write.
        maps: PNG with the same label maps without photographs, for a picture that is passed on.
    """
    images = TestImages(next(iter(runs.values())))
    chosen = np.linspace(0, len(images) - 1, min(_SHOWN, len(images)) + 2)[1:-1].round()
    shown = [int(index) for index in chosen] if len(images) > _SHOWN else range(len(images))
    photos = [_photo(images.path(index)) for index in shown]
    labels = {'Truth': [images.truth(index) for index in shown]}
    for title, folder in runs.items():
        model = init_model(folder / CONFIG, folder / FINAL, deploy=True)
        labels[_in_lines(title)] = [predicted(model, images.path(index)) for index in shown]
    legend = list(zip(images.classes, images.palette.tolist(), strict=True))
    first = PictureRow('Photograph', [Tile(photo) for photo in photos])
    draw_scenes([first, *_rows(photos, labels, images.palette)], legend, path)
    nothing = [np.zeros_like(photo) for photo in photos]
    draw_scenes(_rows(nothing, labels, images.palette), legend, maps)


def draw_cells(runs: Mapping[str, Path], path: Path) -> None:
    """Some test images of a detector, their boxes, and those that several runs find.

    Args:
        runs: Title of a start -> folder of its run; all of one data set.
        path: PNG to write.
    """
    models = {
        title: init_model(folder / CONFIG, folder / FINAL, deploy=True)
        for title, folder in runs.items()
    }
    cfg = load_config(next(iter(runs.values())) / CONFIG)
    for step in cfg.val_dataloader.dataset.pipeline:
        if component_name(step.type) == 'Resize':  # shown, and labelled, at the size of the file
            step.pop('scale')
            step.update(scale_factor=1.0)
    dataset = _test_set(cfg)
    objects = Objects(dataset, _SHOWN)
    rows = objects.scenes()
    for title, model in models.items():
        found = {
            index: inference(model, dataset.get_data_info(index)['img_path'])
            for index in objects.chosen
        }
        rows.append(objects.predicted(_in_lines(title), found))
    draw_scenes(rows, objects.legend, path)
    _use_few_colours(path)


def draw_fields(runs: Mapping[str, Path], path: Path, progress: Callable[[str], None]) -> None:
    """Effective receptive fields of the last maps of trained backbones, on test images.

    Args:
        runs: Title of a network -> folder of its run; all of one data set.
        path: SVG to write.
        progress: Called with a line of text now and then.
    """
    images = TestImages(next(iter(runs.values())))
    step = max(1, len(images) // _IMAGES)
    files = [images.path(index) for index in range(0, len(images), step)][:_IMAGES]
    contenders = [
        Contender(title, str(folder / CONFIG), str(folder / FINAL))
        for title, folder in runs.items()
    ]
    settings = FieldSettings(size=_SIZE, num_images=_IMAGES)
    fields = measure_receptive_fields(contenders, files, settings, progress)
    draw_receptive_fields({field.contender.name: field.scores for field in fields}, path)


def draw_trade(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy over the folded time per image, of the networks that differ in it.

    Args:
        result: Of :func:`~.results.collect`, times included.
        path: SVG or PNG to write; the other one lies beside it.
    """
    rows = {
        row.network: row
        for row in rows_of(result['networks'], itemgetter('network'))
        if row.results
    }
    shown = [name for name in _TRADED if name in rows]
    with picture(path, 3.4) as figure:
        axes = figure.add_subplot()
        for name, colour in zip(shown, _COLOURS, strict=False):
            time, score = result['times']['networks'][name], rows[name].score('mIoU')
            low, high = score.interval or (score.mean, score.mean)
            marker = 'o' if name.startswith('sw_') else 's'
            axes.plot([time['median_ms']] * 2, [low, high], color=colour, linewidth=1)
            axes.plot(
                time['median_ms'], score.mean, marker, color=colour, label=network_title(name)
            )
        axes.set_xlabel('milliseconds per image, folded, one thread')
        axes.set_ylabel('mIoU of the test images [%]')
        axes.grid(True, axis='y')
        axes.tick_params(colors=SOFT)
        figure.legend(loc='outside right center')


def _test_set(cfg: Config) -> BaseDataset:
    """What a run was scored on."""
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        return DATASETS.build(cfg.val_dataloader.dataset)


def _rows(
    photos: Sequence[np.ndarray], labels: Mapping[str, Sequence[np.ndarray]], palette: np.ndarray
) -> list[PictureRow]:
    """Label maps over photographs, all classes painted."""
    return [
        PictureRow(
            name,
            [
                Tile(paint(photo, classes, palette, unpainted=()))
                for photo, classes in zip(photos, maps, strict=True)
            ],
        )
        for name, maps in labels.items()
    ]


def _photo(path: str) -> np.ndarray:
    """RGB ``[H, W, 3]``."""
    import cv2

    return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)


def _use_few_colours(path: Path) -> None:
    """Make a picture of photographs a third of its size."""
    from PIL import Image

    with Image.open(path) as full:
        few = full.convert('RGB').quantize(256)
    write_whole(path, lambda temporary: few.save(temporary, format='PNG', optimize=True))


def _in_lines(title: str) -> str:
    """The name of a row, its details below it."""
    name, _, more = title.partition(', ')
    return '\n'.join(part for part in (name, *more.split(', ')) if part)
