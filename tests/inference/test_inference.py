"""init_model and inference, for both tasks."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import threading
import weakref
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from inference_helpers import CONFIGS, both, build
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmsw.apis import (
    UsageError,
    image_way,
    inference,
    init_model,
    iter_inference,
    load_config,
)
from mmsw.apis.annotate import annotate_images, draw
from mmsw.checkpoint import CheckpointError
from mmsw.datasets import DataError


def values(result) -> torch.Tensor:
    if 'pred_sem_seg' in result:
        return result.pred_sem_seg.data
    boxes = result.pred_instances
    return torch.cat([boxes.bboxes, boxes.scores[:, None], boxes.labels[:, None]], 1)


@both
def test_model_is_ready(scope: str, models, checkpoints) -> None:
    model = models[scope]
    assert not any(module.training for module in model.modules())
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert model.cfg.default_scope == scope
    saved = torch.load(checkpoints[scope], weights_only=True)['state_dict']
    own = model.state_dict()
    assert all(torch.equal(own[name.removeprefix('module.')], saved[name]) for name in saved)
    classes, palette = model.dataset_meta['classes'], model.dataset_meta['palette']
    assert len(classes) == len(palette) == {'mmseg': 150, 'mmdet': 1}[scope]
    assert classes[0] == {'mmseg': 'wall', 'mmdet': 'square'}[scope]


def test_pretrained_file_is_not_needed(checkpoints) -> None:
    cfg = load_config(CONFIGS['mmseg'])
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='absent.pth')
    model = init_model(cfg, checkpoints['mmseg'])
    assert model.cfg.model.backbone.init_cfg.checkpoint == 'absent.pth'


def test_config_object_is_not_changed(checkpoints) -> None:
    cfg = load_config(CONFIGS['mmdet'])
    before = copy.deepcopy(cfg.to_dict())
    model = init_model(cfg, checkpoints['mmdet'], cfg_options={'model.test_cfg.max_per_img': 2})
    assert cfg.to_dict() == before
    assert model.cfg.model.test_cfg.max_per_img == 2


def test_without_checkpoint_it_warns() -> None:
    with pytest.warns(UserWarning, match='no checkpoint: the weights of the model are random'):
        init_model(CONFIGS['mmdet'])


def test_classes_of_the_checkpoint_win(checkpoints, tmp_path: Path) -> None:
    path = tmp_path / 'named.pth'
    saved = torch.load(checkpoints['mmdet'], weights_only=True)
    for meta, palette in (
        ({'dataset_meta': {'CLASSES': ('disc',), 'palette': [(1, 2, 3)]}}, [(1, 2, 3)]),
        ({'CLASSES': ('disc',), 'PALETTE': [[4, 5, 6]]}, [(4, 5, 6)]),
        ({'dataset_meta': {'classes': ('disc',), 'palette': 'random'}}, None),
    ):
        torch.save({**saved, 'meta': meta}, path)
        found = init_model(CONFIGS['mmdet'], path).dataset_meta
        assert found['classes'] == ('disc',)
        assert found['palette'] == palette or (palette is None and len(found['palette'][0]) == 3)


def test_made_up_palette_and_missing_classes(checkpoints) -> None:
    cfg = load_config(CONFIGS['mmdet'])
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg.pop(loader)
    with pytest.raises(UsageError, match=r'names of the classes: add metainfo'):
        init_model(cfg, checkpoints['mmdet'])
    names = tuple('abcdefghijkl')
    cfg.test_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=names)))
    palette = init_model(cfg, checkpoints['mmdet']).dataset_meta['palette']
    assert len({tuple(colour) for colour in palette}) == len(palette) == 12
    assert all(0 <= part <= 255 for colour in palette for part in colour)


def test_checkpoints_that_do_not_fit_are_refused(checkpoints, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'checkpoint absent\.pth does not exist'):
        init_model(CONFIGS['mmseg'], 'absent.pth')
    with pytest.raises(CheckpointError, match=r'mmdet\.pth does not fit the EncoderDecoder'):
        init_model(CONFIGS['mmseg'], checkpoints['mmdet'])
    saved = torch.load(checkpoints['mmseg'], weights_only=True)
    backbone = {k: v for k, v in saved['state_dict'].items() if '.backbone.' in k}
    torch.save({'state_dict': backbone}, tmp_path / 'backbone.pth')
    with pytest.raises(CheckpointError, match='parameters are missing'):
        init_model(CONFIGS['mmseg'], tmp_path / 'backbone.pth')
    whole = saved['state_dict']
    bare = {name: value for name, value in whole.items() if 'running_mean' not in name}
    torch.save({'state_dict': bare}, tmp_path / 'bare.pth')
    with pytest.raises(CheckpointError, match=r'lacks \d+ buffers, among them .*running_mean'):
        init_model(CONFIGS['mmseg'], tmp_path / 'bare.pth')
    other = {'model.backbone.big_kernels': (9, 7, 5, 3)}
    with pytest.raises(CheckpointError, match='does not fit the EncoderDecoder'):
        init_model(CONFIGS['mmseg'], checkpoints['mmseg'], cfg_options=other)
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(checkpoints['mmseg'].read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r'cut\.pth .* is truncated'):
        init_model(CONFIGS['mmseg'], cut)


def test_checkpoints_that_run_code_are_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return print, ('harm',)

    torch.save({'state_dict': {}, 'meta': Harm()}, tmp_path / 'harm.pth')
    with pytest.raises(CheckpointError, match='more than tensors and plain data'):
        init_model(CONFIGS['mmseg'], tmp_path / 'harm.pth')


def test_checkpoint_by_address(checkpoints) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(checkpoints['mmdet'].parent))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        model = init_model(CONFIGS['mmdet'], f'{address}/mmdet.pth')
        with pytest.raises(CheckpointError, match=r'/absent\.pth cannot be fetched: .*404'):
            init_model(CONFIGS['mmdet'], f'{address}/absent.pth')
        server.shutdown()
    saved = torch.load(checkpoints['mmdet'], weights_only=True)['state_dict']
    own = model.state_dict()
    assert all(torch.equal(own[name.removeprefix('module.')], saved[name]) for name in saved)


def test_other_wishes_that_cannot_be_met(checkpoints) -> None:
    cfg = load_config(CONFIGS['mmseg'])
    cfg.default_scope = 'mmaction'
    with pytest.raises(UsageError, match="default_scope='mmaction'"):
        init_model(cfg, checkpoints['mmseg'])
    with pytest.raises(UsageError, match='has no model'):
        init_model(Config(dict(default_scope='mmseg')))
    with pytest.raises(UsageError, match="device 'toaster' cannot be used"):
        init_model(CONFIGS['mmseg'], checkpoints['mmseg'], 'toaster')
    with pytest.raises(UsageError, match=r'config file absent\.py does not exist'):
        init_model('absent.py')


@pytest.mark.skipif(torch.cuda.is_available(), reason='no-gpu: there is one')
def test_devices_without_gpu(checkpoints) -> None:
    with pytest.raises(UsageError, match="device 'cuda:0' cannot be used"):
        init_model(CONFIGS['mmseg'], checkpoints['mmseg'], 'cuda:0')
    model = init_model(CONFIGS['mmseg'], checkpoints['mmseg'], device=None)
    assert next(model.parameters()).device.type == 'cpu'


@both
def test_deploy_gives_the_same_results(scope: str, models, checkpoints, photo: Path) -> None:
    folded = init_model(CONFIGS[scope], checkpoints[scope], deploy=True)
    assert not any('paths' in name for name in folded.backbone.state_dict())
    expected, found = inference(models[scope], photo), inference(folded, photo)
    if scope == 'mmdet':
        torch.testing.assert_close(values(found), values(expected), rtol=1e-3, atol=1e-2)
    else:
        assert (values(found) == values(expected)).float().mean() > 0.999


@both
def test_same_result_as_in_a_test_run(scope: str, models, photo: Path) -> None:
    """The truth is the config's own test data set, which loads annotations as well."""
    model = models[scope]
    cfg = copy.deepcopy(model.cfg.test_dataloader.dataset)
    info = dict(img_path=str(photo), img_id=7, instances=[], height=61, width=87)
    info.update(seg_map_path=str(photo.with_name('labels.png')), seg_fields=[])
    info.update(reduce_zero_label=True, label_map=None)
    cv2.imwrite(info['seg_map_path'], np.zeros((61, 87), np.uint8))
    cfg.update(lazy_init=True)
    with DefaultScope.overwrite_default_scope(scope), torch.no_grad():
        sample = DATASETS.build(cfg).pipeline(info)
        (expected,) = model.test_step(pseudo_collate([sample]))
    found = inference(model, photo)
    assert len(values(expected)) > 0
    torch.testing.assert_close(values(found), values(expected), rtol=0, atol=0)
    assert found.ori_shape == (61, 87)
    if scope == 'mmseg':
        assert values(found).shape == (1, 61, 87)
        assert values(found).unique().numel() > 1
    else:
        assert found.pred_instances.bboxes[:, 2].max() <= 87


@both
def test_all_kinds_of_images_and_lists(scope: str, models, photo: Path) -> None:
    model = models[scope]
    array = cv2.imread(str(photo))
    kept = array.copy()
    other = cv2.flip(array, 1)[:40]
    expected = values(inference(model, photo))
    for image in (str(photo), array, np.asfortranarray(array), array[::-1][::-1]):
        assert torch.equal(values(inference(model, image)), expected)
    np.testing.assert_array_equal(array, kept)
    results = inference(model, [photo, other, array])
    assert [result.ori_shape for result in results] == [(61, 87), (40, 87), (61, 87)]
    assert torch.equal(values(results[2]), expected)
    assert torch.equal(values(results[1]), values(inference(model, other)))
    assert type(inference(model, (photo,))) is list
    assert inference(model, []) == []
    grey = array[..., 1]
    assert torch.equal(
        values(inference(model, grey)), values(inference(model, np.stack([grey] * 3, 2)))
    )


@both
def test_results_come_one_by_one(scope: str, models, photo: Path) -> None:
    model = models[scope]
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    try:
        results = iter_inference(model, (photo for _ in range(3)))
        assert calls == []
        next(results)
        assert calls == [False]
        assert torch.is_grad_enabled()
        assert len(list(results)) == 2
    finally:
        handle.remove()


def test_logits_are_kept_on_demand(models, photo: Path) -> None:
    assert 'seg_logits' not in inference(models['mmseg'], photo)
    result = inference(models['mmseg'], photo, keep_logits=True)
    assert result.seg_logits.data.shape == (150, 61, 87)
    assert torch.equal(result.seg_logits.data.argmax(0, keepdim=True), result.pred_sem_seg.data)


@both
def test_modes_of_the_parts_come_back(scope: str, checkpoints, photo: Path) -> None:
    model = init_model(CONFIGS[scope], checkpoints[scope])
    expected = values(inference(model, photo))
    model.train()
    frozen = model.backbone.stages[0].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    assert torch.equal(values(inference(model, photo)), expected)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(UsageError):
        inference(model, np.zeros((3, 3), np.float32))
    assert [module.training for module in model.modules()] == modes
    assert model.training
    assert not frozen.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((9, 9, 3), np.float32), r'image 1 is a float32 array \[9, 9, 3\]; expected a pa'),
        (np.zeros((2, 9, 9, 3), np.uint8), r'image 1 is a uint8 array \[2, 9, 9, 3\]'),
        (np.zeros((9, 9, 4), np.uint8), r'array \[9, 9, 4\]; .* BGR \[H, W, 3\] or grey'),
        (np.zeros((0, 9, 3), np.uint8), r'array \[0, 9, 3\]'),
        (torch.zeros(3, 9, 9), 'image 1 is a Tensor'),
        (None, 'image 1 is a NoneType'),
    ],
)
def test_what_is_no_image_is_refused(image, message: str, models, photo: Path) -> None:
    calls = []
    handle = models['mmseg'].register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(UsageError, match=message):
            inference(models['mmseg'], [photo, image])
    finally:
        handle.remove()
    assert calls == []  # found before any work


@both
def test_broken_files_are_named(scope: str, models, tmp_path: Path) -> None:
    broken = tmp_path / 'broken.jpg'
    with pytest.raises(DataError, match=r'image file .*broken\.jpg does not exist'):
        inference(models[scope], broken)
    with pytest.raises(DataError, match='is a folder'):
        inference(models[scope], tmp_path)
    broken.write_text('no picture')
    with pytest.raises(DataError, match=r'broken\.jpg .* is no picture that can be decoded'):
        inference(models[scope], broken)


@both
@pytest.mark.parametrize('shape', [(50, 1, 3), (1, 50, 3), (1, 1, 3)])
def test_tiny_images(scope: str, shape: tuple[int, ...], models) -> None:
    image = np.random.randint(0, 256, shape, dtype=np.uint8)
    result = inference(models[scope], image)
    assert result.ori_shape == shape[:2]
    assert draw(models[scope], image, result, score_thr=0.0).shape == shape


def test_image_that_resizing_cannot_take_is_named(models) -> None:
    with pytest.raises(DataError, match=r'image 0 \(array \[9000, 1, 3\]\) cannot be prepared'):
        inference(models['mmdet'], np.zeros((9000, 1, 3), np.uint8))


def test_models_from_elsewhere_are_refused(photo: Path) -> None:
    with pytest.raises(UsageError, match=r'Identity has no cfg: make the model with mmsw\.apis'):
        inference(nn.Identity(), photo)


def test_pipelines_that_do_not_load_are_refused(models, photo: Path) -> None:
    model = copy.copy(models['mmseg'])
    model.cfg = copy.deepcopy(model.cfg)
    model.cfg.test_dataloader.dataset.pipeline = [dict(type='PackSegInputs')]
    with pytest.raises(UsageError, match='must begin with LoadImageFromFile'):
        inference(model, photo)
    model.cfg.test_dataloader = None
    model.cfg.test_pipeline = []
    with pytest.raises(UsageError, match='has neither'):
        inference(model, photo)


@both
def test_pipelines_are_built_once_per_model(
    scope: str, checkpoints, photo: Path, tmp_path: Path, monkeypatch
) -> None:
    model = init_model(CONFIGS[scope], checkpoints[scope])
    builds, registrations = [], []
    compose, register = image_way.Compose, image_way.register_toolbox
    monkeypatch.setattr(image_way, 'Compose', lambda steps: builds.append(1) or compose(steps))
    monkeypatch.setattr(
        image_way, 'register_toolbox', lambda cfg: registrations.append(1) or register(cfg)
    )
    expected = values(inference(model, photo))
    copies = [photo.with_name(f'{number}.png') for number in range(3)]
    for path in copies:
        path.write_bytes(photo.read_bytes())
    annotate_images(model, copies, tmp_path / 'out', progress=lambda _: None)
    assert torch.equal(values(inference(model, cv2.imread(str(photo)))), expected)
    assert (len(builds), len(registrations)) == (2, 1)  # for files and for arrays

    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(values(inference(twin, photo)), expected)
    assert len(builds) == 6
    steps = model.cfg.test_dataloader.dataset.pipeline
    steps.insert(1, dict(type='RandomFlip', prob=1.0, direction='vertical'))
    assert not torch.equal(values(inference(model, photo)), expected)
    assert len(builds) == 8


def test_models_are_freed(checkpoints, photo: Path) -> None:
    """What is kept for a model keeps no model."""
    model = init_model(CONFIGS['mmseg'], checkpoints['mmseg'])
    inference(model, photo)
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None


@both
def test_folded_checkpoint_gives_the_same_results(
    scope: str, models, checkpoints, photo: Path, tmp_path: Path
) -> None:
    """A file that was saved after switch_to_deploy."""
    folded = init_model(CONFIGS[scope], checkpoints[scope], deploy=True)
    path = tmp_path / 'folded.pth'
    torch.save({'state_dict': folded.state_dict(), 'meta': {}}, path)
    for deploy in (False, True):
        loaded = init_model(CONFIGS[scope], path, deploy=deploy)
        own, saved = loaded.state_dict(), folded.state_dict()
        assert own.keys() == saved.keys()
        assert all(torch.equal(own[name], saved[name]) for name in saved)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(
            loaded.backbone(images), models[scope].backbone(images), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_masks_of_ordinary_layers_are_kept(checkpoints, tmp_path: Path) -> None:
    saved = torch.load(checkpoints['mmseg'], weights_only=True)
    key = 'module.backbone.stages.0.0.pointwise_conv1'
    weight = saved['state_dict'][f'{key}.weight']
    mask = torch.rand(weight.shape) < 0.5
    saved['state_dict'][f'{key}.mask'] = mask
    weight.masked_fill_(~mask, 0.0)
    torch.save(saved, tmp_path / 'pruned.pth')
    model = init_model(CONFIGS['mmseg'], tmp_path / 'pruned.pth')
    assert torch.equal(model.state_dict()[f'{key}.mask'.removeprefix('module.')], mask)


def test_model_survives_mmengines_own_loading(checkpoints) -> None:
    """The folded SyncBN does not change which parameters a file has to have."""
    cfg = load_config(CONFIGS['mmdet'])
    assert any(isinstance(part, nn.SyncBatchNorm) for part in build(cfg).modules())
    names = set(revert_sync_batchnorm(build(cfg)).state_dict())
    saved = torch.load(checkpoints['mmdet'], weights_only=True)['state_dict']
    assert names == {name.removeprefix('module.') for name in saved}
