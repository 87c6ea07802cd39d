"""The start that learns from the dense run of its seed: its plan, its runs, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from study_helpers import ROOT
from transfer_helpers import call, settings_for

from mmsw.apis import build_runner
from mmsw.benchmarks.page import BEGIN, END, figures_path
from mmsw.benchmarks.runs import CONFIG, FINAL, result_of
from mmsw.benchmarks.transfer.page import page_text, update_page
from mmsw.benchmarks.transfer.plan import TransferRun, TransferSettings, plan_runs, run_config
from mmsw.benchmarks.transfer.report import make_rows, same_conditions, write_report
from mmsw.benchmarks.transfer.starts import find_starts
from mmsw.checkpoint import load_checkpoint_file

STARTS = ['sparse-distilled', 'dense', 'sparse']  # the learner is named first


@pytest.fixture(scope='module')
def distilled(
    network, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TransferSettings, list[TransferRun]]:
    """Finished runs of two seeds, trained in this process."""
    out = tmp_path_factory.mktemp('distilled')
    (out / 'starts').symlink_to(pretrained)
    settings = settings_for(out, STARTS, seeds=2)
    runs = plan_runs([network], settings, find_starts([network], settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', property(lambda cfg: repr(cfg.to_dict())))
        for run in runs:
            cfg = run_config(run, settings)
            run.folder.mkdir(parents=True)
            (run.folder / CONFIG).write_text(f'model = {cfg.model.to_dict()!r}\n')
            build_runner(cfg).train()
    return settings, runs


def test_the_teacher_comes_first_and_is_of_the_same_seed(distilled) -> None:
    _, runs = distilled
    assert [run.start for run in runs] == ['dense', 'sparse', 'sparse-distilled'] * 2
    for run in runs:
        if run.start != 'sparse-distilled':
            assert run.teacher is None
            assert 'teacher' not in run.settings
            continue
        assert (run.teacher.start, run.teacher.seed) == ('dense', run.seed)
        assert run.settings['teacher'] == run.teacher.digest
        assert run.checkpoint == next(r.checkpoint for r in runs if r.start == 'sparse')


def test_runs_differ_in_the_losses_alone(distilled) -> None:
    settings, runs = distilled
    assert same_conditions(runs) == []
    results = {run.start: result_of(run) for run in runs if run.seed == 0}
    taught, alone = results['sparse-distilled'], results['sparse']
    assert taught['density_before'] == alone['density_before']
    assert taught['density_after'] == alone['density_after']
    assert taught['density_after']['zeros'] > 0
    assert taught['parameters'] == alone['parameters']  # the teacher is not counted
    finals = [
        load_checkpoint_file(run.folder / FINAL)['state_dict'] for run in runs if run.seed == 0
    ]
    assert finals[1].keys() == finals[2].keys()
    assert any(not torch.equal(finals[1][name], finals[2][name]) for name in finals[1])
    hooks = [run_config(run, settings).custom_hooks for run in runs[:3]]
    kinds = [[str(hook['type']).rpartition('.')[2] for hook in each] for each in hooks]
    assert ['DistillationHook' in each for each in kinds] == [False, False, True]


def test_the_report_compares_it_with_dense_and_with_sparse(distilled, network) -> None:
    settings, runs = distilled
    text = write_report([network], runs, settings, [])
    head = next(line for line in text.splitlines() if line.startswith('| network'))
    assert 'mIoU − dense [95% interval]' in head
    assert 'mIoU − sparse [95% interval]' in head
    assert '3 comparisons with dense or sparse, paired by seed (2 seeds)' in text
    summary = json.loads((settings.out / 'results.json').read_text())['summary']
    found = {row['start']: row['scores']['mIoU'] for row in summary}
    scores = {run.name: result_of(run)['scores']['mIoU'] for run in runs}
    gains = [
        scores[run.name] - scores[run.name.replace('sparse-distilled', 'sparse')]
        for run in runs
        if run.start == 'sparse-distilled'
    ]
    mean = found['sparse-distilled']['minus_sparse']['mean']
    assert mean == pytest.approx(sum(gains) / 2)
    assert 'minus_sparse' not in found['dense']
    assert 'minus_dense' not in found['dense']


def test_the_page_is_made_of_the_figures_beside_it(distilled, network, tmp_path) -> None:
    settings, runs = distilled
    page = tmp_path / 'page.md'
    page.write_text(f'# A page\n\n{BEGIN}\n\nold\n{END}\n\nThe end.\n')
    update_page(make_rows([network], runs, settings.starts), settings, page)
    text = page.read_text()
    assert text.startswith('# A page\n')
    assert text.endswith(f'{END}\n\nThe end.\n')
    assert 'old' not in text
    assert text.count('| sparse-distilled |') == 2  # scores, and cost
    assert page_text(json.loads(figures_path(page).read_text())) in text


def test_the_page_of_the_documentation_has_the_figures_beside_it() -> None:
    page = ROOT / 'docs/distillation.md'
    figures = figures_path(page)
    shown = page.read_text(encoding='utf-8').partition(BEGIN)[2].partition(END)[0].strip()
    if figures.is_file():
        assert shown == page_text(json.loads(figures.read_text(encoding='utf-8'))).strip()
    else:
        assert '|' not in shown  # no figures without the file


def test_ready_comparison(data, tmp_path, capsys) -> None:
    arguments = ('--compare', 'distillation', '--data', data, '--out', tmp_path / 'out')
    assert call(*arguments, '--seeds', 1, '--dry-run') == 0
    shown = capsys.readouterr().out
    assert '6 of 6 runs to do, 2880 iterations' in shown
    for task in ('seg-upernet', 'det-mask_rcnn'):
        assert f'run: {task}_sw_mini_scenes-sparse-distilled-seed0' in shown
