"""Pretraining with mmpretrain: models, one short run, and what it leads to."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from config_helpers import RECIPE, count_parameters
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from pretrain_helpers import (
    CLASSES,
    CONFIGS,
    NETWORKS,
    PRETRAIN,
    PROBLEM,
    published_classifier,
    small,
)

from mmsw.apis import build_runner, build_test_runner, init_model, load_config, register_toolbox
from mmsw.datasets import DataError
from mmsw.sparsity import report

pytestmark = pytest.mark.skipif(
    PROBLEM is not None,
    reason=f'mmpretrain: {PROBLEM}; see requirements/pretrain.txt, in an environment of its own',
)


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in ImageNet's layout: six classes of two images."""
    root = tmp_path_factory.mktemp('imagenet')
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label in range(CLASSES):
            folder = root / split / f'n{label:08d}'
            folder.mkdir(parents=True)
            for number in range(2):
                image = generator.integers(0, 256, (40, 50, 3), np.uint8)
                cv2.imwrite(str(folder / f'{split}_{label}_{number}.png'), image)
    return root


@pytest.mark.parametrize('name', CONFIGS)
def test_reduced_model_trains_and_predicts(name: str) -> None:
    from mmpretrain.structures import DataSample

    cfg = small(name, Path('nowhere'))
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (1, 4)]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    losses = model(**data, mode='loss')
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    assert [key for key, param in model.named_parameters() if param.grad is None] == []
    with torch.no_grad():
        results = model.eval().test_step(dict(inputs=images, data_samples=samples))
    assert [tuple(result.pred_score.shape) for result in results] == [(CLASSES,)] * 2


@pytest.mark.parametrize(('name', 'golden', 'dense'), NETWORKS)
def test_full_size_model_has_the_published_parameters(
    data_dir: Path, name: str, golden: str, dense: str | None
) -> None:
    cfg = load_config(PRETRAIN / name)
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        model = MODELS.build(cfg.model)
    published = json.loads((data_dir / 'param_counts.json').read_text())[golden]['params']
    assert count_parameters(model) == published


def test_vectors_do_not_decay() -> None:
    from mmengine.optim import build_optim_wrapper

    cfg = small('sw_t_in1k.py', Path('nowhere'))
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    decays = {id(group['params'][0]): group['weight_decay'] for group in groups}
    for key, param in model.named_parameters():
        assert decays[id(param)] == (0.05 if param.ndim > 1 else 0), key


def test_published_file_gives_the_published_logits(data_dir: Path) -> None:
    _, state = published_classifier(data_dir / 'backbone_v2_mini_checkpoint.pth')
    golden = np.load(data_dir / 'backbone_v2_mini_io.npz')
    cfg = small('sw_t_in1k.py', Path('nowhere'), num_classes=1000)
    arch = dict(_delete_=True, depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])
    cfg.merge_from_dict({'model.backbone.arch': arch, 'model.neck.in_channels': 40})
    cfg.model.backbone.big_kernels = (51, 49, 47, 13)
    cfg.model.head.in_channels = 40
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(key.endswith(('.channel_order', '_index', '.shift_hv')) for key in missing)
    with torch.no_grad():
        logits = model(torch.from_numpy(golden['image']))
    torch.testing.assert_close(logits, torch.from_numpy(golden['logits']), rtol=1e-4, atol=1e-4)


def test_from_pretraining_to_dense_prediction(
    imagenet: Path, tmp_path: Path, plain_config_text: None
) -> None:
    cfg = small('sw_t_in1k.py', imagenet)
    build_runner(cfg, tmp_path / 'run').train()
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    trained = init_model(cfg, checkpoint)
    total = report(trained).total
    assert total.kept == total.total - round(0.3 * total.total)

    metrics = build_test_runner(cfg, checkpoint, tmp_path / 'test', out=tmp_path / 'a.pkl').test()
    assert 0 <= metrics['accuracy/top1'] <= 100
    assert (tmp_path / 'a.pkl').is_file()

    settings = load_config(RECIPE).model.backbone  # of a segmentor, in the size of the small one
    settings.update(
        arch=cfg.model.backbone.arch,
        big_kernels=cfg.model.backbone.big_kernels,
        init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint)),
    )
    net = revert_sync_batchnorm(MODELS.build(settings))
    net.init_weights()
    state = net.state_dict()
    source = trained.backbone.state_dict()
    assert all(torch.equal(state[key], source[key]) for key in source)
    assert report(net).stages == report(trained).stages

    cfg.train_cfg.max_epochs = 2
    build_runner(cfg, tmp_path / 'run', resume=True).train()
    assert report(init_model(cfg, tmp_path / 'run' / 'epoch_2.pth')).total == total


def test_other_number_of_classes_than_the_config_says(
    imagenet: Path, tmp_path: Path, plain_config_text: None
) -> None:
    cfg = small('sw_t_in1k.py', imagenet)
    cfg.train_dataloader.dataset.type = 'ImageNet'
    runner = build_runner(cfg, tmp_path)
    with pytest.raises(DataError, match=r'train_dataloader .*in it: 6\): .*CustomDataset'):
        runner.train()
