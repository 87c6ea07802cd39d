"""The toolboxes' own programs for inference, on our configs and what our training saved."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from inference_helpers import CONFIGS, both, write_data
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import BaseDataElement

from mmsw.apis import build_runner, build_test_runner, inference, init_model
from mmsw.checkpoint import CheckpointError, read_checkpoint

pytestmark = pytest.mark.usefixtures('quiet')


@pytest.fixture(scope='module')
def trained(plain_config_text, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of two iterations."""
    files = {}
    for scope, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(scope)
        untested = dict.fromkeys(('val_dataloader', 'val_evaluator', 'val_cfg'))
        build_runner(
            config, folder / 'work', data_root=write_data(scope, folder), cfg_options=untested
        ).train()
        (files[scope],) = (folder / 'work').glob('*_*.pth')
    return files


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('image') / 'image.png'
    cv2.imwrite(str(path), np.random.randint(0, 256, (61, 87, 3), dtype=np.uint8))
    return path


@pytest.fixture(scope='module')
def expected(trained: dict[str, Path], image: Path) -> dict[str, BaseDataElement]:
    return {
        scope: inference(init_model(CONFIGS[scope], trained[scope]), image) for scope in CONFIGS
    }


def same(found: BaseDataElement, expected: BaseDataElement) -> bool:
    if 'pred_sem_seg' in expected:
        return torch.equal(found.pred_sem_seg.data, expected.pred_sem_seg.data)
    assert len(expected.pred_instances) > 0
    keys = ('bboxes', 'scores', 'labels')
    return all(torch.equal(found.pred_instances[k], expected.pred_instances[k]) for k in keys)


@both
def test_functions(scope: str, trained: dict[str, Path], image: Path, expected) -> None:
    apis = importlib.import_module(f'{scope}.apis')
    make, infer = {
        'mmseg': ('init_model', 'inference_model'),
        'mmdet': ('init_detector', 'inference_detector'),
    }[scope]
    model = getattr(apis, make)(str(CONFIGS[scope]), str(trained[scope]), device='cpu')
    model = revert_sync_batchnorm(model)  # which mmseg leaves to its callers
    for given in (str(image), cv2.imread(str(image))):
        assert same(getattr(apis, infer)(model, given), expected[scope])
    for given in (image, cv2.imread(str(image))):  # after theirs
        assert same(inference(model, given), expected[scope])


@both
def test_inferencers(
    scope: str, trained: dict[str, Path], image: Path, expected, tmp_path: Path
) -> None:
    apis = importlib.import_module(f'{scope}.apis')
    inferencer = getattr(apis, {'mmseg': 'MMSegInferencer', 'mmdet': 'DetInferencer'}[scope])
    configs = [str(CONFIGS[scope])]
    if scope == 'mmdet':
        configs.append(None)  # what the checkpoint says
    for config in configs:
        program = inferencer(config, str(trained[scope]), device='cpu')
        found = program(str(image), return_datasamples=True, out_dir=str(tmp_path))
        found = found['predictions'][0] if scope == 'mmdet' else found
        assert same(found, expected[scope])
        assert program.model.dataset_meta['classes'][0] in ('wall', 'square')
    assert len(list((tmp_path / 'vis').iterdir())) == 1


def test_nothing_is_handed_over_where_a_checkpoint_is_read(
    trained: dict[str, Path], image: Path, expected, tmp_path: Path
) -> None:
    """Trained with --from-scratch; the config still names what its base has for a ResNet."""
    checkpoint = trained['mmseg']
    call = dict(cfg_options={'model.pretrained': 'open-mmlab://resnet50_v1c'})
    model = init_model(CONFIGS['mmseg'], checkpoint, **call)
    assert same(inference(model, image), expected['mmseg'])
    call.update(work_dir=tmp_path, data_root=checkpoint.parents[1] / 'data')
    for runner in (
        build_test_runner(CONFIGS['mmseg'], checkpoint, **call),
        build_runner(CONFIGS['mmseg'], resume=checkpoint, **call),
    ):
        assert runner.model.backbone.init_cfg is None
    with pytest.raises(CheckpointError, match=r'set model\.pretrained=None'):
        build_runner(CONFIGS['mmseg'], **call)


@both
def test_what_training_stores_names_the_stock_loaders(scope: str, trained: dict[str, Path]) -> None:
    """Our own are of the run, not of its config."""
    saved = read_checkpoint(trained[scope])
    (dumped,) = trained[scope].parent.glob('*.py')
    for text in (saved['meta']['cfg'], dumped.read_text()):
        assert "'LoadImageFromFile'" in text
        assert 'LoadValid' not in text
