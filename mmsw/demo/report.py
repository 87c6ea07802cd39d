"""What the demonstration came to: accuracy and density before and after, and a picture."""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import find_latest_checkpoint
from torch import Tensor

from mmsw.apis.config import load_config, register_toolbox
from mmsw.apis.data import check_data
from mmsw.apis.valid_loaders import with_valid_loaders
from mmsw.checkpoint import load_checkpoint_file
from mmsw.component_name import component_name
from mmsw.errors import SparsityChangedError, UsageError
from mmsw.sparsity import Density, SparsityReport

from .picture import PictureScene, draw_scenes

RUN_FOLDER = 'finetune'  # below the work folder: where tools/train.py wrote
PICTURE = 'demo.png'
_UNLABELLED = 255
_SMALL_KERNELS = re.compile(r'(stages\.(\d+)\.\d+\.shift_wise)\.paths\.\d+\.weight$')


@dataclass(frozen=True)
class DemoReport:
    """Figures of a finished demonstration.

    Attributes:
        start: Checkpoint file that the backbone started from.
        end: Checkpoint file that the training left.
        num_scenes: Held-out scenes that the scores are of.
        scores: Score name -> per cent before and after training.
        densities: Before and after training, counted in the files' tensors.
        num_zeros: Weights that are zero in the start file; all of them are in the end file.
        picture: Picture of some held-out scenes.
    """

    start: Path
    end: Path
    num_scenes: int
    scores: dict[str, tuple[float, float]]
    densities: tuple[SparsityReport, SparsityReport]
    num_zeros: int
    picture: Path

    def __str__(self) -> str:
        before, after = self.densities
        rows = [
            (f'{name} on {self.num_scenes} held-out scenes', f'{old:.2f} %', f'{new:.2f} %')
            for name, (old, new) in self.scores.items()
        ]
        rows += [
            (f'filters kept, stage {stage}', _share(density), _share(after.stages[stage]))
            for stage, density in sorted(before.stages.items())
        ]
        rows.append(('filters kept, in all', _share(before.total), _share(after.total)))
        lines = [f'{name:<32}{old:>22}{new:>22}' for name, old, new in rows]
        return '\n'.join(
            [
                f'{"":<32}{"before fine-tuning":>22}{"after":>22}',
                *lines,
                f'All {self.num_zeros} weights that are zero in {self.start}',
                f'are exactly zero in {self.end} (compared file with file).',
                f'Picture: {self.picture}',
            ]
        )


def demo_report(work_dir: str | os.PathLike[str], num_pictured: int = 4) -> DemoReport:
    """Score the network before and after training, compare the two files, and draw some scenes.

    Args:
        work_dir: Folder with the run of ``tools/train.py`` in ``finetune``; the picture goes there.
        num_pictured: Held-out scenes to draw.

    Returns:
        The figures.

    Raises:
        UsageError: If there is no finished run in the folder, or its data are gone.
        SparsityChangedError: If a pruned weight came back.
    """
    work_dir = Path(work_dir)
    run = work_dir / RUN_FOLDER
    cfg = _config_of(run)
    start, end = _start_file(cfg, run), _last_checkpoint(run)
    check_data(cfg, ['test_dataloader'])
    files = tuple(_tensors(path) for path in (start, end))
    densities = tuple(_densities(state) for state in files)
    num_zeros = _check_zeros(*files, names=(start, end))

    MMLogger.get_instance('demo_report', log_level='ERROR')
    with (
        DefaultScope.overwrite_default_scope(register_toolbox(cfg)),
        torch.random.fork_rng(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')  # mmseg's, about its own code
        torch.manual_seed(0)
        dataset = DATASETS.build(with_valid_loaders(cfg.test_dataloader.dataset, cfg))
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
        model.init_weights()
        before, _ = evaluate(model, dataset, cfg.test_evaluator)
        model.load_state_dict(load_checkpoint_file(end)['state_dict'])
        after, predictions = evaluate(model, dataset, cfg.test_evaluator)
        scenes = _pictured(dataset, predictions, num_pictured)
    draw_scenes(
        scenes, dataset.metainfo['classes'], dataset.metainfo['palette'], work_dir / PICTURE
    )
    return DemoReport(
        start,
        end,
        len(dataset),
        {name: (before[name], after[name]) for name in sorted(after, key='mIoU'.__ne__)},
        densities,
        num_zeros,
        work_dir / PICTURE,
    )


@torch.no_grad()
def evaluate(
    model: BaseModel, dataset: BaseDataset, evaluator_cfg: dict | list
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Scores of a segmentation model on a data set, on the device of the model.

    Args:
        model: The model.
        dataset: Samples with their truth.
        evaluator_cfg: As ``test_evaluator`` of a config.

    Returns:
        Scores in per cent by name, and the predicted label map ``[H, W]`` of every sample.
    """
    evaluator = Evaluator(copy.deepcopy(evaluator_cfg))
    evaluator.dataset_meta = dataset.metainfo
    model.eval()
    predictions = []
    for index in range(len(dataset)):
        outputs = model.test_step(pseudo_collate([dataset[index]]))
        evaluator.process(data_samples=outputs, data_batch=None)
        predictions.append(outputs[0].pred_sem_seg.data[0].cpu().numpy())
    scores = evaluator.evaluate(len(dataset))
    return {name: float(value) for name, value in scores.items()}, predictions


def _config_of(run: Path) -> Config:
    """The config that a run used, as the runner wrote it down."""
    dumped = sorted(run.glob('*.py'))
    if len(dumped) != 1:
        raise UsageError(
            f'{run} holds {len(dumped)} configs, expected the one of a finished run: '
            f'python tools/train.py configs/demo/upernet_sw_mini_scenes.py --work-dir {run}'
        )
    return load_config(dumped[0])


def _start_file(cfg: Config, run: Path) -> Path:
    init_cfg = cfg.model.backbone.get('init_cfg') or {}
    if component_name(init_cfg.get('type')) != 'Pretrained':
        raise UsageError(f'the run in {run} started without a checkpoint, so there is no "before"')
    return Path(init_cfg['checkpoint'])


def _last_checkpoint(run: Path) -> Path:
    if not (run / 'last_checkpoint').is_file():
        raise UsageError(f'{run} holds no checkpoint yet; let tools/train.py finish')
    return run / Path(find_latest_checkpoint(str(run))).name  # the folder may have been moved


def _tensors(path: Path) -> dict[str, Tensor]:
    """Small kernels in a checkpoint file by their name in the backbone."""
    checkpoint = load_checkpoint_file(path)
    state: Mapping[str, Tensor] = checkpoint.get('state_dict', checkpoint)
    found = ((_SMALL_KERNELS.search(key), tensor) for key, tensor in state.items())
    return {match[0]: tensor for match, tensor in found if match}


def _densities(kernels: Mapping[str, Tensor]) -> SparsityReport:
    """Filters with a weight that is not zero, without asking any mask."""
    layers: dict[str, Density] = {}
    stages: dict[int, Density] = {}
    for key, weight in kernels.items():
        match = _SMALL_KERNELS.search(key)
        alive = weight.flatten(1) != 0
        density = Density(int(alive.any(1).sum()), len(alive), int(alive.sum()), alive.numel())
        layers[match[1]] = layers.get(match[1], Density()) + density
        stages[int(match[2])] = stages.get(int(match[2]), Density()) + density
    return SparsityReport(layers, stages, sum(stages.values(), Density()))


def _check_zeros(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: tuple[Path, Path]
) -> int:
    """Number of zeros in the first file; raise unless all of them are zeros in the second."""
    if before.keys() != after.keys():
        raise UsageError(f'{names[0]} and {names[1]} are of different networks')
    lost = {
        key: count
        for key in before
        if (count := int(torch.count_nonzero(after[key][before[key] == 0])))
    }
    if lost:
        raise SparsityChangedError(
            f'{sum(lost.values())} weights that are zero in {names[0]} are not in {names[1]}: '
            f'{", ".join(f"{key} ({count})" for key, count in list(lost.items())[:3])}'
        )
    return sum(int((weight == 0).sum()) for weight in before.values())


def _pictured(
    dataset: BaseDataset, predictions: Sequence[np.ndarray], number: int
) -> list[PictureScene]:
    """Scenes that together show many classes besides the background, chosen by their truth."""
    truths = [_truth(dataset, index) for index in range(len(dataset))]
    classes = [set(np.unique(truth).tolist()) - {_UNLABELLED, 0} for truth in truths]
    chosen = choose_scenes(classes, number)
    return [
        PictureScene(_photo(dataset, index), truths[index], predictions[index]) for index in chosen
    ]


def choose_scenes(classes: Sequence[set[int]], number: int) -> list[int]:
    """Pick scenes one by one: each time the most classes not seen yet, then the most classes.

    Args:
        classes: Classes of every scene.
        number: Scenes to pick, or as many as there are.

    Returns:
        Indices in ascending order.
    """
    seen: set[int] = set()
    left = list(range(len(classes)))
    chosen = []
    while left and len(chosen) < number:
        best = max(left, key=lambda i: (len(classes[i] - seen), len(classes[i]), -i))
        left.remove(best)
        chosen.append(best)
        seen |= classes[best]
    return sorted(chosen)


def _truth(dataset: BaseDataset, index: int) -> np.ndarray:
    return dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()


def _photo(dataset: BaseDataset, index: int) -> np.ndarray:
    """RGB ``[H, W, 3]``."""
    return dataset[index]['inputs'].flip(0).permute(1, 2, 0).numpy()


def _share(density: Density) -> str:
    return f'{density.kept}/{density.total} = {density.density:.2%}'
