"""Runners of training and testing: what a call asks for, what is refused, what is loaded."""

import os
from pathlib import Path

import pytest
import torch
from config_helpers import DETECTOR, MINI, RECIPE, build_model, has_sync_bn
from mmengine.dist import is_distributed
from mmengine.model import MMDistributedDataParallel
from mmengine.visualization import Visualizer
from torch import nn

from mmsw.apis import UsageError, build_runner, build_test_runner, load_config
from mmsw.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures('plain_config_text')
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='no-gpu: there is one')


def test_runner_takes_the_options_of_the_call(ade_layout: Path, tmp_path: Path) -> None:
    runner = build_runner(
        MINI,
        work_dir=tmp_path / 'work',
        resume='auto',
        data_root=ade_layout,
        auto_scale_lr=True,
        cfg_options={'train_cfg.max_iters': 7},
    )
    assert runner.work_dir == str(tmp_path / 'work')
    assert runner.cfg.train_cfg.max_iters == 7
    assert runner.cfg.auto_scale_lr.enable
    assert runner.cfg.train_dataloader.dataset.data_root == str(ade_layout)
    assert not runner.cfg.resume  # nothing there yet
    assert not has_sync_bn(runner.model)
    assert any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in runner.model.modules())


def test_backbone_starts_from_what_was_asked_for(ade_layout: Path, tmp_path: Path) -> None:
    call = dict(work_dir=tmp_path / 'work', data_root=ade_layout)
    with pytest.raises(
        CheckpointError, match=r'checkpoints/sw_t_v2_imagenet1k\.pth does not exist'
    ):
        build_runner(RECIPE, **call)
    with pytest.raises(CheckpointError, match=r'mine\.pth does not exist'):
        build_runner(MINI, pretrained='mine.pth', **call)
    assert not (tmp_path / 'work').exists()
    (tmp_path / 'mine.pth').touch()
    runner = build_runner(MINI, pretrained=tmp_path / 'mine.pth', **call)
    assert runner.cfg.model.backbone.init_cfg.checkpoint == str(tmp_path / 'mine.pth')
    runner = build_runner(MINI, pretrained=False, **call)
    assert runner.cfg.model.backbone.init_cfg is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(launcher='ssh'), "launcher must be one of .* got 'ssh'"),
        (dict(resume='absent.pth'), 'checkpoint to resume from absent.pth does not exist'),
        (dict(resume='tests'), 'checkpoint to resume from tests is a folder'),
        (dict(cfg_options={'load_from': 'tests'}), 'load_from tests is a folder'),
        (dict(cfg_options={'auto_scale_lr': None}, auto_scale_lr=True), 'base_batch_size'),
        (dict(pretrained=True), 'pretrained must be a path'),
        (dict(data_root='/absent'), '/absent does not exist'),
    ],
)
def test_impossible_wishes_are_refused(
    arguments: dict, message: str, ade_layout: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        build_runner(MINI, tmp_path / 'work', **{'data_root': ade_layout, **arguments})
    assert not (tmp_path / 'work').exists()


@without_gpu
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(dict(amp=True), '--amp. needs a GPU'), (dict(launcher='slurm'), 'slurm.* needs GPUs')],
)
def test_wishes_that_need_a_gpu_are_refused(
    arguments: dict, message: str, ade_layout: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        build_runner(MINI, tmp_path / 'work', data_root=ade_layout, **arguments)


def test_pytorch_launcher_needs_torchrun(
    ade_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(
        UsageError, match=r'RANK.* in the environment: start through tools/dist_tra'
    ):
        build_runner(MINI, tmp_path, data_root=ade_layout, launcher='pytorch')


@without_gpu
def test_process_group_without_gpu(
    ade_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1')
    for name, value in dict(variables, MASTER_PORT='0', OMP_NUM_THREADS='1').items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    runner = build_runner(MINI, tmp_path, data_root=ade_layout, launcher='pytorch')
    try:
        assert is_distributed()
        assert torch.distributed.get_backend() == 'gloo'
        assert isinstance(runner.model, MMDistributedDataParallel)
        assert not has_sync_bn(runner.model)
    finally:
        torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)
        os.environ.pop('MKL_NUM_THREADS', None)


def test_test_runner_takes_the_options_of_the_call(ade_layout: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / 'some.pth'
    checkpoint.touch()
    call = dict(work_dir=tmp_path / 'work', data_root=ade_layout)
    runner = build_test_runner(
        MINI, checkpoint, tta=True, show_dir=tmp_path / 'shown', out=tmp_path / 'out', **call
    )
    assert type(runner.model).__name__ == 'SegTTAModel'
    assert runner.cfg.test_dataloader.dataset.pipeline == runner.cfg.tta_pipeline
    assert runner.cfg.default_hooks.visualization.draw
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'ResultFilesHook')
    assert hook.label_maps == str(tmp_path / 'out')
    assert (runner._load_from, runner._resume) == (str(checkpoint), False)
    assert type(build_test_runner(MINI, checkpoint, **call).model).__name__ == 'EncoderDecoder'
    cfg = load_config(MINI)
    cfg.use_tta = True
    assert type(build_test_runner(cfg, checkpoint, **call).model).__name__ == 'SegTTAModel'

    with pytest.raises(UsageError, match=r'checkpoint absent\.pth does not exist'):
        build_test_runner(MINI, 'absent.pth', **call)
    with pytest.raises(UsageError, match=rf'checkpoint {tmp_path} is a folder'):
        build_test_runner(MINI, tmp_path, **call)
    with pytest.raises(UsageError, match=r'--out \S+: \S+some\.pth is a file, expected a folder'):
        build_test_runner(MINI, checkpoint, out=checkpoint, **call)
    cfg.pop('tta_model')
    with pytest.raises(UsageError, match='has no tta_model'):
        build_test_runner(cfg, checkpoint, **call)


def test_runners_of_one_process_draw_with_their_own_visualizers(
    ade_layout: Path, tmp_path: Path
) -> None:
    (tmp_path / 'some.pth').touch()
    for part in ('annotations', 'train', 'val'):
        (tmp_path / 'coco' / part).mkdir(parents=True)
    (tmp_path / 'coco' / 'annotations' / 'val.json').write_text('{}')
    for name in ('visualizer', 'later'):
        Visualizer.get_instance(name)
    for config, root, kind in (
        (MINI, ade_layout, 'Seg'),
        (DETECTOR, tmp_path / 'coco', 'Det'),
        (MINI, ade_layout, 'Seg'),
    ):
        call = dict(work_dir=tmp_path / 'work', data_root=root, show_dir=tmp_path / kind)
        runner = build_test_runner(config, tmp_path / 'some.pth', **call)
        (hook,) = (h for h in runner.hooks if type(h).__name__ == f'{kind}VisualizationHook')
        assert hook._visualizer is runner.visualizer
        assert type(runner.visualizer).__name__ == f'{kind}LocalVisualizer'


def test_checkpoint_must_fill_the_model(ade_layout: Path, tmp_path: Path) -> None:
    call = dict(work_dir=tmp_path / 'work', data_root=ade_layout)
    model = build_model(load_config(MINI))
    whole = {f'module.{name}': value for name, value in model.state_dict().items()}
    partial = {name: value for name, value in whole.items() if '.decode_head.' not in name}
    path = tmp_path / 'some.pth'

    torch.save({'state_dict': partial}, path)
    runner = build_test_runner(MINI, path, **call)
    with pytest.raises(CheckpointError, match=r'some\.pth does not fit the EncoderDecoder'):
        runner.load_or_resume()
    other = {**whole, 'module.backbone.norm0.weight': torch.ones(3)}
    torch.save({'state_dict': other}, path)
    with pytest.raises(CheckpointError, match=r'norm0\.weight \(3,\) instead of \(8,\)'):
        runner.load_or_resume()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match=r'some\.pth .* is truncated'):
        runner.load_or_resume()

    torch.save({'state_dict': whole}, path)
    runner.load_or_resume()
    own = runner.model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize('tta', [False, True])
def test_folded_checkpoint_is_tested(ade_layout: Path, tmp_path: Path, tta: bool) -> None:
    """A file that was saved after switch_to_deploy."""
    model = build_model(load_config(MINI)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.backbone(images)
    model.backbone.switch_to_deploy()
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'folded.pth')
    runner = build_test_runner(
        MINI, tmp_path / 'folded.pth', tmp_path / 'work', data_root=ade_layout, tta=tta
    )
    runner.load_or_resume()
    loaded = runner.model.module if tta else runner.model
    own = loaded.state_dict()
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        for found, wanted in zip(loaded.eval().backbone(images), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_detection_goes_the_same_way(tmp_path: Path) -> None:
    for part in ('annotations', 'train', 'val'):
        (tmp_path / 'coco' / part).mkdir(parents=True)
    call = dict(work_dir=tmp_path / 'work', data_root=tmp_path / 'coco')
    with pytest.raises(UsageError, match=r'lacks annotations/train\.json, annotations/val\.json'):
        build_runner(DETECTOR, **call)
    for split in ('train', 'val'):
        (tmp_path / 'coco' / 'annotations' / f'{split}.json').write_text('{}')
    runner = build_runner(DETECTOR, **call)
    assert type(runner.model).__name__ == 'RetinaNet'
    assert not has_sync_bn(runner.model)
    annotations = str(tmp_path / 'coco' / 'annotations' / 'val.json')
    assert runner.cfg.test_evaluator.ann_file == annotations

    checkpoint = tmp_path / 'some.pth'
    checkpoint.touch()
    out = tmp_path / 'boxes.pkl'
    runner = build_test_runner(DETECTOR, checkpoint, show_dir=tmp_path / 'shown', out=out, **call)
    hook = runner.cfg.default_hooks.visualization
    assert (hook.type, hook.draw) == ('mmdet.DetVisualizationHook', True)
    assert hook.test_out_dir == str(tmp_path / 'shown')
    coco, dump = runner.cfg.test_evaluator
    assert (coco.ann_file, dump.out_file_path) == (annotations, str(out))
    with pytest.raises(UsageError, match=r"one \.pkl file, got 'folder'"):
        build_test_runner(DETECTOR, checkpoint, out='folder', **call)
    with pytest.raises(UsageError, match='has no tta_model'):
        build_test_runner(DETECTOR, checkpoint, tta=True, **call)
