"""What the benchmark on real photographs would train, and requests that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_sets import make_camvid
from study_helpers import ROOT, assert_one_line_and_nothing_left, call_tool

from mmsw.apis.config import load_config
from mmsw.benchmarks.photographs import parts
from mmsw.benchmarks.photographs.plan import NETWORKS, PRESETS, PRUNED, SPARSITIES, pretrained_file
from mmsw.benchmarks.transfer.plan import TransferRun
from mmsw.benchmarks.transfer.study import TransferStudy

TOOL = ROOT / 'tools/benchmark_photographs.py'
SETS = ['--data', '../sets']


@pytest.fixture(scope='module')
def study(tmp_path_factory: pytest.TempPathFactory) -> TransferStudy:
    """The comparison, on pictures of a test's size."""
    folder = tmp_path_factory.mktemp('study')
    make_camvid(folder / 'camvid')
    return parts.comparison(folder, folder, PRESETS['standard'], 1)


@pytest.fixture(scope='module')
def runs(study: TransferStudy) -> list[TransferRun]:
    return study.plan()


def test_fine_tuning_starts_from_runs_of_the_comparison(
    study: TransferStudy, runs: list[TransferRun]
) -> None:
    files = {run.folder / 'final.pth' for run in runs}
    assert {pretrained_file(study.out.parent, share) for share in (0, *SPARSITIES)} <= files


def test_every_network_has_every_seed(runs: list[TransferRun]) -> None:
    seeds = range(PRESETS['standard'].seeds)
    wanted = [(name, seed) for seed in seeds for name in NETWORKS]
    assert [(run.network.name, run.seed) for run in runs] == wanted
    assert {run.iterations for run in runs} == {PRESETS['standard'].iterations}


def test_the_comparison_scores_the_test_images(
    study: TransferStudy, runs: list[TransferRun]
) -> None:
    cfg = study.config_of(runs[0])
    assert cfg.val_dataloader.dataset.data_prefix.img_path == 'test'
    assert cfg.train_dataloader.dataset.data_prefix.img_path == 'train'
    resize = next(step for step in cfg.val_dataloader.dataset.pipeline if step.type == 'Resize')
    assert tuple(resize.scale) == PRESETS['standard'].image_scale


@pytest.mark.parametrize('name', PRUNED)
def test_pruning_follows_the_length_of_a_run(
    name: str, study: TransferStudy, runs: list[TransferRun]
) -> None:
    run = next(run for run in runs if run.network.name == name)
    hooks = study.config_of(run).custom_hooks
    (hook,) = (hook for hook in hooks if hook.type == 'DynamicSparsityHook')
    assert hook.sparsity == pytest.approx(PRUNED[name] / 100)
    assert hook.end_iter == (0 if 'static' in name else round(0.75 * run.iterations))


def test_runs_at_full_size_differ_in_crops_and_length(tmp_path: Path) -> None:
    make_camvid(tmp_path / 'camvid')
    wanted = PRESETS['full'].long
    study = parts.long_runs(tmp_path, tmp_path, PRESETS['full'], 2)
    runs = study.plan()
    assert [run.network.name for run in runs] == list(wanted.networks)
    assert {run.iterations for run in runs} == {wanted.iterations}
    for run in runs:
        cfg = study.config_of(run)
        loader, height, width = cfg.train_dataloader, *wanted.crop_size
        assert (loader.batch_size, loader.num_workers) == (wanted.batch_size, wanted.workers)
        crop = next(step for step in loader.dataset.pipeline if step.type == 'RandomCrop')
        assert tuple(crop.crop_size) == wanted.crop_size
        # the sum over pixels that the loss is, as their mean
        factor = cfg.model.decode_head.loss_decode.loss_weight
        assert factor * wanted.batch_size * height * width == pytest.approx(1)
        assert cfg.val_dataloader.dataset.data_prefix.img_path == 'test'


def test_the_run_at_full_size_of_a_cpu_is_that_of_its_config(tmp_path: Path) -> None:
    make_camvid(tmp_path / 'camvid')
    (run,) = parts.long_runs(tmp_path, tmp_path, PRESETS['standard'], 2).plan()
    own = load_config(ROOT / f'configs/camvid/{run.network.name}.py', {}, tmp_path / 'camvid')
    for part in ('model', 'train_pipeline'):
        assert run.network.cfg[part] == own[part], part
    assert run.network.cfg.train_dataloader.batch_size == own.train_dataloader.batch_size


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], r'data/camvid and data/bccd not found: docs/real_data\.md says where'),
        (['--parts', 'long'], r'data/camvid not found'),
        (['--parts', 'scratch,paint'], r"parts must be some of .*'paint'"),
        (['--jobs', '0'], 'jobs must be at least 1, got 0'),
        (['--jobs', '1000'], r'jobs must be at most the \d+ processors here, got 1000'),
        (['--page', 'page.md', *SETS], r'page\.md does not exist'),
        (['--page', '../R.md', '--parts', 'long', *SETS], r'lines <!-- tables full-size: begin'),
        (['--readme', '../R.md', *SETS], r'R\.md has no lines <!-- tables photographs: begin'),
        (['--parts', 'transfer', *SETS], r'final\.pth does not exist: add scratch to --parts'),
    ],
)
def test_requests_that_cannot_be_met(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path.parent / 'R.md').touch()
    for name in ('camvid', 'bccd'):
        (tmp_path.parent / 'sets' / name).mkdir(parents=True, exist_ok=True)
    assert_one_line_and_nothing_left(TOOL, arguments, message, capsys)


def test_a_dry_run_lists_everything_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_camvid(tmp_path / 'data/camvid')
    assert call_tool(TOOL, '--out', 'out', '--dry-run', '--parts', 'scratch,long') == 0
    told = capsys.readouterr().out
    assert told.count('run: seg-') == len(NETWORKS) * PRESETS['standard'].seeds + 1
    assert not Path('out').exists()
