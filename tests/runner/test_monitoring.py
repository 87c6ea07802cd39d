"""What a run sends to TensorBoard and Weights & Biases, and what happens where they are absent."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import VISBACKENDS
from mmengine.structures import BaseDataElement
from mmengine.visualization import LocalVisBackend
from mmengine.visualization.vis_backend import BaseVisBackend
from tiny_run import tiny_config

from mmsw.apis import UsageError, build_runner
from mmsw.apis.monitoring import enable_monitoring, start_explained
from mmsw.apis.testing import enable_drawing
from mmsw.engine.hooks import MonitorHook
from mmsw.engine.hooks.monitor_hook import _picture


@VISBACKENDS.register_module()
class RecordingBackend(BaseVisBackend):
    """Notes all scalars and pictures by name."""

    def __init__(self, save_dir: str = '') -> None:
        super().__init__(save_dir)
        self.scalars: dict[str, list] = {}
        self.pictures: dict[str, np.ndarray] = {}

    experiment = None

    def _init_env(self) -> None:
        pass

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path=None, **_) -> None:
        for name, value in scalar_dict.items():
            self.scalars.setdefault(name, []).append((step, value))

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_) -> None:
        self.pictures[name] = image


def test_backends_are_added_beside_those_of_the_config(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, visualizer=dict(type='Visualizer', vis_backends=[]))
    cfg.visualizer.vis_backends = [dict(type='RecordingBackend')]
    enable_monitoring(cfg, tensorboard=True, wandb='mine', must_be_there=False)
    kinds = [item['type'] for item in cfg.visualizer.vis_backends]
    assert kinds == ['RecordingBackend', 'TensorboardVisBackend', 'WandbVisBackend']
    assert cfg.visualizer.vis_backends[2].init_kwargs == {'project': 'mine'}
    enable_monitoring(cfg, tensorboard=True, wandb=True, must_be_there=False)
    assert len(cfg.visualizer.vis_backends) == 3
    assert cfg.visualizer.vis_backends[2].init_kwargs == {'project': 'mine'}
    assert [hook['type'] for hook in cfg.custom_hooks] == ['MonitorHook']
    assert cfg.log_processor.log_with_hierarchy is True


def test_a_log_processor_of_ones_own_stays(tmp_path: Path) -> None:
    for own in (dict(type='MyLogProcessor'), dict(type='LogProcessor', log_with_hierarchy=False)):
        cfg = tiny_config(tmp_path, log_processor=own)
        enable_monitoring(cfg, tensorboard=True, must_be_there=False)
        assert cfg.log_processor == own


def test_a_config_without_a_visualizer_gets_that_of_its_toolbox(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.default_scope = 'mmdet'
    enable_monitoring(cfg)
    assert 'visualizer' not in cfg
    enable_monitoring(cfg, wandb=True, must_be_there=False)
    assert cfg.visualizer.type == 'mmdet.DetLocalVisualizer'
    assert [item['type'] for item in cfg.visualizer.vis_backends] == [
        'LocalVisBackend',
        'WandbVisBackend',
    ]
    assert cfg.visualizer.vis_backends[1].init_kwargs.project == 'mmsw'


@pytest.mark.parametrize('package', ['tensorboard', 'wandb'])
def test_a_missing_package_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for module in ('tensorboard', 'torch.utils.tensorboard', 'wandb'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf'--{package} needs .* `pip install {package}`.*monitor'):
        build_runner(tiny_config(tmp_path / 'work'), **{package: True})
    assert not (tmp_path / 'work').exists()


def test_a_refusal_of_wandb_is_one_line() -> None:
    kind = type('UsageError', (Exception,), {'__module__': 'wandb.errors'})
    with pytest.raises(UsageError, match=r'no key.*WANDB_MODE=offline'), start_explained():
        raise kind('no key')


def test_tensorboard_gets_loss_rate_density_and_exchanges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a writer in the place of TensorBoard's; mmengine's backend is the real one."""
    scalars: dict[str, list] = {}

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert Path(folder).is_relative_to(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.setdefault(name, []).append((step, value))

        def add_text(self, *_) -> None:
            pass

        def close(self) -> None:
            pass

    module = types.ModuleType('torch.utils.tensorboard')
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    hooks = [dict(type='DynamicSparsityHook', start='erk', sparsity=0.5, interval=2)]
    cfg = tiny_config(tmp_path, 4, custom_hooks=hooks)
    cfg.default_hooks.logger.interval = 1
    build_runner(cfg, tensorboard=True).train()
    assert [step for step, _ in scalars['train/loss']] == [1, 2, 3, 4]
    assert scalars['train/lr'][0][1] == pytest.approx(0.1)
    assert scalars['sparsity/density_all'][0] == (0, pytest.approx(0.5, abs=0.1))
    assert {f'sparsity/density_stage{stage}' for stage in range(4)} < scalars.keys()
    ((step, pruned),) = scalars['sparsity/pruned_weights']
    assert step == 2
    assert pruned > 0
    assert scalars['sparsity/grown_weights'] == [(2, pruned)]
    assert 0 < scalars['sparsity/exchanged'][0][1] < 1


class Sketcher:
    """A visualizer that draws truth left of prediction."""

    def __init__(self, backends: dict) -> None:
        self._vis_backends = backends

    def add_datasample(self, name, image, data_sample=None, step=0) -> None:
        for backend in self._vis_backends.values():
            backend.add_image(name, np.concatenate([image, image], axis=1), step)

    def add_scalars(self, scalars: dict, step: int = 0) -> None:
        for backend in self._vis_backends.values():
            backend.add_scalars(scalars, step)


def stub_runner(visualizer: object) -> types.SimpleNamespace:
    preprocessor = types.SimpleNamespace(channel_conversion=True)
    model = torch.nn.Identity()
    model.data_preprocessor = preprocessor
    logger = types.SimpleNamespace(found=[], warning=lambda text: logger.found.append(text))
    return types.SimpleNamespace(visualizer=visualizer, model=model, iter=7, logger=logger)


def test_the_same_few_images_are_drawn_each_time(tmp_path: Path) -> None:
    recording = RecordingBackend()
    local = LocalVisBackend(str(tmp_path / 'vis'))
    runner = stub_runner(Sketcher({'a': local, 'b': recording}))
    hook = MonitorHook(num_pictures=3)
    for _ in range(2):
        recording.pictures.clear()
        hook.before_val_epoch(runner)
        for batch in range(3):
            names = [f'x/{2 * batch + index}.jpg' for index in range(2)]
            samples = [
                BaseDataElement(metainfo=dict(ori_shape=(900, 1000), img_path=name))
                for name in names
            ]
            inputs = [torch.zeros(3, 8, 8, dtype=torch.uint8) for _ in names]
            hook.after_val_iter(runner, batch, dict(inputs=inputs), samples)
        assert list(recording.pictures) == [f'pictures/{i}_{i}.jpg' for i in range(3)]
    assert max(recording.pictures['pictures/0_0.jpg'].shape) == 1024
    assert not (tmp_path / 'vis').exists()
    hook.after_test_epoch(runner, {'mIoU': 50.0, 'name': 'x'})
    assert recording.scalars['test/mIoU'] == [(7, 50.0)]


def test_an_image_that_cannot_be_drawn_ends_nothing() -> None:
    recording = RecordingBackend()
    runner = stub_runner(Sketcher({'b': recording}))
    hook = MonitorHook()
    for _ in range(2):
        hook.after_val_iter(runner, 0, dict(inputs=[None]), [BaseDataElement()])
    assert len(runner.logger.found) == 1
    assert 'num_pictures=0' in runner.logger.found[0]
    assert recording.pictures == {}


def test_pictures_have_the_colours_and_the_size_of_the_file() -> None:
    model = stub_runner(None).model
    blue_green_red = torch.tensor([1, 2, 200], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4)
    assert _picture(blue_green_red, (6, 8), model).shape == (6, 8, 3)
    assert _picture(blue_green_red, (6, 8), model)[0, 0].tolist() == [200, 2, 1]
    model.data_preprocessor.channel_conversion = False
    assert _picture(blue_green_red, (4, 4), model)[0, 0].tolist() == [1, 2, 200]
    grey = torch.tensor([[[-1.0, 1.0]]])
    assert _picture(grey, (1, 2), model).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize('number', [-1, 1.5])
def test_a_number_of_pictures_that_makes_no_sense(number: float) -> None:
    with pytest.raises(ValueError, match='num_pictures must be a whole number'):
        MonitorHook(num_pictures=number)


def test_pictures_of_a_test_also_go_to_the_other_backends(tmp_path: Path) -> None:
    backends = [dict(type='LocalVisBackend'), dict(type='WandbVisBackend')]
    cfg = tiny_config(tmp_path, visualizer=dict(type='SegLocalVisualizer', vis_backends=backends))
    enable_drawing(cfg, 'mmseg', tmp_path / 'shown')
    local, other = cfg.visualizer.vis_backends
    assert local == dict(type='LocalVisBackend', img_save_dir=str(tmp_path / 'shown'))
    assert other == dict(type='WandbVisBackend')
