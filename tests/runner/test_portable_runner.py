"""What the runner reads, keeps, refuses and says, with a training of a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny_run import POINTWISE, TinyModel, tiny_config

from mmsw.apis import PortableRunner, UsageError, build_runner
from mmsw.apis.backbone import build_backbone
from mmsw.apis.checks.total_batch import total_batch_warning
from mmsw.apis.schedule import fit_schedule
from mmsw.checkpoint import CheckpointError, load_checkpoint_file


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory, plain_config_text: None) -> Path:
    """Checkpoint of a finished training."""
    folder = tmp_path_factory.mktemp('trained')
    build_runner(tiny_config(folder)).train()
    return folder / 'iter_2.pth'


def changed(path: Path, target: Path, change) -> Path:
    """A copy of a checkpoint with changed contents."""
    content = load_checkpoint_file(path)
    change(content)
    torch.save(content, target)
    return target


class TestResuming:
    def test_nothing_of_the_file_is_executed(self, trained: Path, tmp_path: Path) -> None:
        witness = tmp_path / 'witness'
        text = f"x = __import__('pathlib').Path({str(witness)!r}).write_text('harm')\n"

        def plant(content: dict) -> None:
            content['meta']['config'] = text

        bad = changed(trained, tmp_path / 'bad.pth', plant)
        runner = build_runner(tiny_config(tmp_path / 'work', 4), resume=bad)
        runner.train()
        assert not witness.exists()
        assert runner.iter == 4
        other = build_runner(tiny_config(tmp_path / 'other', 4))
        other.resume(str(bad))
        assert not witness.exists()
        exec(text)
        assert witness.exists(), 'the text is not as harmful as the test believes'

    @pytest.mark.parametrize('gpus', [1, 8])
    def test_another_number_of_gpus_is_no_obstacle(
        self, trained: Path, tmp_path: Path, gpus: int
    ) -> None:
        def note(content: dict) -> None:
            content['meta']['config'] = f'gpu_ids = range({gpus})\n'

        old = changed(trained, tmp_path / 'old.pth', note)
        runner = build_runner(tiny_config(tmp_path / 'work', 4), resume=old)
        runner.train()
        assert runner.iter == 4

    def test_weights_alone_are_refused(self, trained: Path, tmp_path: Path) -> None:
        def strip(content: dict) -> None:
            state = content.pop('state_dict')
            content.clear()
            content['state_dict'] = state

        bare = changed(trained, tmp_path / 'bare.pth', strip)
        runner = build_runner(tiny_config(tmp_path / 'work', 4), resume=bare)
        with pytest.raises(CheckpointError, match=r'bare\.pth holds no training .*epoch.*load_fro'):
            runner.train()

    def test_nothing_to_resume_is_a_warning(self, tmp_path: Path, messages: list) -> None:
        build_runner(tiny_config(tmp_path), resume=True)
        why = '(it holds no checkpoint): starting from the beginning'
        assert ('WARNING', f'nothing to resume in {tmp_path} {why}') in messages


class RunsCode:
    """Unpickling it writes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize('place', ['load_from', 'part'])
def test_no_file_of_a_run_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Neither the runner's own, nor those that mmengine reads for parts of the model.

    mmengine leaves the decision to torch.load, whose older versions unpickle anything; the fork
    reads again with weights_only=False what torch refuses.
    """
    witness, bad = tmp_path / 'witness', tmp_path / 'bad.pth'
    torch.save({'state_dict': {}, 'meta': RunsCode(witness)}, bad)
    load = torch.load

    def old_load(*args, weights_only: bool | None = None, **kwargs):
        return load(*args, weights_only=bool(weights_only), **kwargs)

    monkeypatch.setattr(torch, 'load', old_load)
    cfg = tiny_config(tmp_path / 'work')
    if place == 'load_from':
        cfg.load_from = str(bad)
    else:
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=str(bad))
    with pytest.raises(CheckpointError, match='tensors and plain data'):
        build_runner(cfg).train()
    assert not witness.exists()
    old_load(bad)
    assert witness.exists(), 'the file is not as harmful as the test believes'


class TestStart:
    def test_file_of_the_backbone_is_not_asked_for(
        self, trained: Path, tmp_path: Path, messages: list
    ) -> None:
        """Where the whole model starts from a file."""
        cfg = tiny_config(tmp_path / 'work')
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='absent.pth')
        with pytest.raises(CheckpointError, match=r'absent\.pth does not exist'):
            build_runner(cfg)
        options = {'load_from': str(trained), 'optim_wrapper.optimizer.lr': 0.0}
        runner = build_runner(cfg, cfg_options=options)
        runner.train()
        saved = load_checkpoint_file(trained)['state_dict']
        own = dict(runner.model.named_parameters())
        assert all(torch.equal(own[name], saved[name]) for name in own)
        assert any('does not start from absent.pth' in text for _, text in messages)

    def test_what_cannot_be_read_is_told_before_anything_is_built(self, tmp_path: Path) -> None:
        cfg = tiny_config(tmp_path / 'work')
        with pytest.raises(UsageError, match=r'load_from absent\.pth does not exist'):
            build_runner(cfg, cfg_options={'load_from': 'absent.pth'})
        for wish in ({'load_from': 'openmmlab://sw'}, {'resume': True, 'load_from': 'pavi://sw'}):
            with pytest.raises(CheckpointError, match=r'://sw cannot be fetched: expected'):
                build_runner(cfg, cfg_options=wish)
        with pytest.raises(CheckpointError, match='torchvision://sw cannot be fetched: expected'):
            build_runner(cfg, pretrained='torchvision://sw')
        assert not (tmp_path / 'work').exists()

    def test_named_file_of_the_backbone_is_asked_for(self, trained: Path, tmp_path: Path) -> None:
        cfg = tiny_config(tmp_path / 'work', load_from=str(trained))
        with pytest.raises(
            CheckpointError, match=r'pretrained file absent\.pth does not exist \(w.*\)$'
        ):
            build_runner(cfg, pretrained='absent.pth')
        misspelt = trained.with_name(trained.name.replace('t', 'tt', 1))
        with pytest.raises(CheckpointError, match=rf'does not exist .*; did you mean {trained}\?$'):
            build_runner(cfg, pretrained=misspelt)

    @pytest.mark.parametrize('key', ['load_from', 'resume'])
    def test_other_runners_may_not_read_checkpoints(
        self, trained: Path, tmp_path: Path, key: str
    ) -> None:
        cfg = tiny_config(tmp_path, runner_type='Runner')
        wish = {'cfg_options': {key: str(trained)}} if key == 'load_from' else {key: trained}
        with pytest.raises(UsageError, match=r"runner_type='Runner' may run .*PortableRunner"):
            build_runner(cfg, **wish)
        assert type(build_runner(cfg)) is Runner
        cfg.runner_type = 'PortableRunner'
        assert type(build_runner(cfg, **wish)) is PortableRunner
        cfg.runner_type = 'NoSuchRunner'
        with pytest.raises(UsageError, match="runner_type='NoSuchRunner' of the config is unknown"):
            build_runner(cfg)


class TestTotalBatch:
    @staticmethod
    def warnings(messages: list) -> list[str]:
        return [text for level, text in messages if level == 'WARNING' and 'a step takes' in text]

    @pytest.mark.parametrize('accumulated', [1, 2])
    def test_other_total_is_said_once_with_both_cures(
        self, tmp_path: Path, messages: list, accumulated: int
    ) -> None:
        cfg = tiny_config(tmp_path, auto_scale_lr=dict(enable=False, base_batch_size=16))
        cfg.optim_wrapper.accumulative_counts = accumulated
        build_runner(cfg).train()
        (text,) = self.warnings(messages)
        assert f'a step takes {2 * accumulated} images' in text
        assert 'the learning rate is for 16' in text
        assert f'train_dataloader.batch_size={16 // accumulated}' in text
        assert '--auto-scale-lr' in text

    def test_epochs_can_also_accumulate(self, tmp_path: Path, messages: list) -> None:
        """In iterations the run would see fewer images."""
        cfg = tiny_config(tmp_path, auto_scale_lr=dict(enable=False, base_batch_size=16))
        build_runner(cfg)
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
        build_runner(cfg)
        by_iterations, by_epochs = self.warnings(messages)
        cure = ' or optim_wrapper.accumulative_counts=8,'
        assert cure in by_epochs
        assert cure not in by_iterations

    @pytest.mark.parametrize(
        'scaling',
        [
            None,
            dict(enable=False),
            dict(enable=False, base_batch_size=2),
            dict(enable=True, base_batch_size=16),
        ],
    )
    def test_nothing_is_said_without_need(
        self, tmp_path: Path, messages: list, scaling: dict | None
    ) -> None:
        build_runner(tiny_config(tmp_path, auto_scale_lr=scaling))
        assert self.warnings(messages) == []

    def test_pretraining_also_names_the_interval_of_exchanges(self) -> None:
        """It counts iterations; the cure keeps the steps between two exchanges."""
        cfg = Config(
            dict(
                train_dataloader=dict(batch_size=128),
                train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=300),
                optim_wrapper=dict(accumulative_counts=2),
                custom_hooks=[dict(type='EMAHook'), dict(type='DynamicSparsityHook', interval=200)],
                auto_scale_lr=dict(base_batch_size=4096),
            )
        )
        text = total_batch_warning(cfg, 8)
        assert 'a step takes 2048 images (processes 8, batch_size 128, acc' in text
        assert 'train_dataloader.batch_size=256 or optim_wrapper.accumulative_counts=4 ' in text
        assert 'accumulative_counts=4 custom_hooks.1.interval=400, or scale' in text
        assert total_batch_warning(cfg, 16) is None

    def test_a_number_that_no_batch_size_gives_is_not_named(self) -> None:
        cfg = Config(
            dict(train_dataloader=dict(batch_size=5), auto_scale_lr=dict(base_batch_size=16))
        )
        text = total_batch_warning(cfg, 3)
        assert 'a step takes 15 images' in text
        assert text.endswith(
            '(auto_scale_lr.base_batch_size): scale the learning rate with --auto-scale-lr'
        )
        assert 'batch_size=1' not in total_batch_warning(cfg, 32)

    def test_scaling_counts_accumulated_images(self, tmp_path: Path) -> None:
        cfg = tiny_config(tmp_path, auto_scale_lr=dict(enable=True, base_batch_size=16))
        cfg.optim_wrapper.accumulative_counts = 4
        runner = build_runner(cfg)
        runner.train()
        (group,) = runner.optim_wrapper.optimizer.param_groups
        assert group['lr'] == pytest.approx(0.1 * 2 * 4 / 16)

    def test_cures_are_cures(self, tmp_path: Path, messages: list) -> None:
        scaling = dict(enable=False, base_batch_size=16)
        cfg = tiny_config(tmp_path, auto_scale_lr=scaling)
        build_runner(cfg, cfg_options={'train_dataloader.batch_size': 16})
        build_runner(cfg, auto_scale_lr=True)
        assert self.warnings(messages) == []


class TestMasksOfOrdinaryLayers:
    @pytest.fixture
    def pruned(self, trained: Path, tmp_path: Path) -> Path:
        """A checkpoint with half of the weights of a pointwise convolution pruned."""

        def prune(content: dict) -> None:
            weight = content['state_dict'][f'{POINTWISE}.weight']
            mask = torch.arange(weight.numel()).view_as(weight) % 2 == 0
            weight.masked_fill_(~mask, 0.0)
            content['state_dict'][f'{POINTWISE}.mask'] = mask

        return changed(trained, tmp_path / 'pruned.pth', prune)

    @pytest.mark.parametrize('averaged', [False, True])
    def test_fine_tuning_keeps_the_zeros(
        self, pruned: Path, tmp_path: Path, averaged: bool
    ) -> None:
        hooks = [dict(type='SparsityReportHook', require_sparse=True)]
        hooks += [dict(type='EMAHook')] if averaged else []
        cfg = tiny_config(tmp_path / 'work', 4, custom_hooks=hooks, load_from=str(pruned))
        build_runner(cfg).train()
        before = load_checkpoint_file(pruned)['state_dict']
        content = load_checkpoint_file(tmp_path / 'work' / 'iter_4.pth')
        mask = before[f'{POINTWISE}.mask']
        for key in ('state_dict', 'ema_state_dict') if averaged else ('state_dict',):
            after = {name.removeprefix('module.'): v for name, v in content[key].items()}
            assert torch.equal(after[f'{POINTWISE}.mask'], mask)
            weight = after[f'{POINTWISE}.weight']
            assert torch.count_nonzero(weight[~mask]) == 0
            assert not torch.equal(weight[mask], before[f'{POINTWISE}.weight'][mask])

    def test_resuming_keeps_the_zeros(self, pruned: Path, tmp_path: Path) -> None:
        runner = build_runner(tiny_config(tmp_path / 'work', 4), resume=pruned)
        runner.train()
        mask = load_checkpoint_file(pruned)['state_dict'][f'{POINTWISE}.mask']
        layer = runner.model.get_submodule(POINTWISE)
        assert torch.equal(layer.mask, mask)
        assert torch.count_nonzero(layer.weight[~mask]) == 0


class TestFoldedFile:
    @pytest.fixture
    def folded(self, trained: Path, tmp_path: Path) -> Path:
        content = load_checkpoint_file(trained)
        model = MODELS.build(tiny_config(tmp_path).model)
        model.load_state_dict(content['state_dict'])
        model.backbone.switch_to_deploy()
        torch.save({**content, 'state_dict': model.state_dict()}, tmp_path / 'folded.pth')
        return tmp_path / 'folded.pth'

    @pytest.mark.parametrize('resume', [False, True])
    def test_it_cannot_be_trained(self, folded: Path, tmp_path: Path, resume: bool) -> None:
        start = {'resume': folded} if resume else {'cfg_options': {'load_from': str(folded)}}
        runner = build_runner(tiny_config(tmp_path / 'work', 4), **start)
        with pytest.raises(CheckpointError, match=r'folded\.pth was saved after switch_to_deploy'):
            runner.train()
        assert not list((tmp_path / 'work').glob('*.pth'))

    def test_it_gives_the_same_outputs(self, folded: Path, trained: Path, tmp_path: Path) -> None:
        images = torch.randn(2, 3, 32, 32)
        outputs = []
        for path in (trained, folded):
            runner = build_runner(tiny_config(tmp_path / 'work'))
            runner.needs_complete_checkpoint = True
            runner.load_checkpoint(str(path))
            with torch.no_grad():
                outputs.append(runner.model.eval()(images))
        assert torch.allclose(*outputs, rtol=0, atol=1e-5)
        assert not torch.allclose(
            outputs[0], TinyModel(tiny_config(tmp_path).model.backbone)(images)
        )

    def test_kernels_of_another_size_are_refused(self, folded: Path, tmp_path: Path) -> None:
        cfg = tiny_config(tmp_path / 'work')
        cfg.model.backbone.big_kernels = (9, 7, 5, 3)
        runner = build_runner(cfg)
        runner.needs_complete_checkpoint = True
        with pytest.raises(CheckpointError, match=r'deploy_wide .* instead of'):
            runner.load_checkpoint(str(folded))


def test_an_error_while_saving_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = build_runner(tiny_config(tmp_path))

    def fail(*_, **__) -> None:
        raise sparsity_lost('gone')

    from mmsw.engine.hooks import SparsityLostError as sparsity_lost

    monkeypatch.setattr(Runner, 'save_checkpoint', fail)
    with pytest.raises(sparsity_lost, match='gone'):
        runner.train()


class TestConfigsWithoutAFile:
    """Messages call them "the config", not None."""

    def test_no_backbone(self, tmp_path: Path) -> None:
        for model in (None, dict(type='TinyModel')):
            cfg = tiny_config(tmp_path)
            cfg.model = model
            with pytest.raises(UsageError, match=r'^the model of the config has no backbone$'):
                build_backbone(cfg)

    def test_no_length(self, tmp_path: Path) -> None:
        cfg = tiny_config(tmp_path)
        cfg.train_cfg = {}
        with pytest.raises(UsageError, match=r'^train_cfg of the config has neither max_iters'):
            fit_schedule(cfg, 10, 1)


def test_what_is_for_workers_is_left_out_where_there_are_none(tmp_path: Path) -> None:
    workers = dict(persistent_workers=True, prefetch_factor=2, timeout=9, num_workers=1)
    cfg = tiny_config(tmp_path)
    cfg.train_dataloader.update(workers, multiprocessing_context='fork')
    runner = build_runner(cfg, cfg_options={'train_dataloader.num_workers': 0})
    runner.train()
    loader = runner.train_dataloader
    assert (runner.iter, loader.num_workers, loader.persistent_workers) == (2, 0, False)
    loader = runner.build_dataloader(cfg.train_dataloader)
    assert (loader.num_workers, loader.persistent_workers, loader.timeout) == (1, True, 9)
    assert cfg.train_dataloader.prefetch_factor == 2
