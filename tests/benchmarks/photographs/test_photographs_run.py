"""The whole benchmark on real photographs, on pictures of a test's size."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from real_sets import make_bccd, make_camvid
from study_helpers import ROOT, call_tool

from mmsw.benchmarks.page import BEGIN, END, begin_line, end_line, figures_path
from mmsw.benchmarks.photographs import benchmark, parts, plan
from mmsw.benchmarks.photographs.full_size_page import full_size_text
from mmsw.benchmarks.photographs.page import page_text

pytestmark = [pytest.mark.slow, pytest.mark.ci]
TOOL = ROOT / 'tools/benchmark_photographs.py'
KEPT = 40  # the only sparsity here


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three networks and one sparsity, since every training is a process of its own."""
    networks = (plan.SHIFT_WISE, f'sw_mini_dynamic{KEPT}_camvid', 'r18_narrow_camvid')
    for module in (parts, benchmark):
        monkeypatch.setattr(module, 'NETWORKS', networks)
    monkeypatch.setattr(benchmark, 'OTHERS', networks[2:])
    monkeypatch.setattr(benchmark, '_SHOWN', networks[1:])
    monkeypatch.setattr(plan, 'REOPENED', KEPT)
    for module in (plan, benchmark):
        monkeypatch.setattr(module, 'SPARSITIES', (KEPT,))


@pytest.mark.usefixtures('few')
def test_from_the_data_to_the_page(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for package in ('mmseg', 'mmdet', 'pycocotools', 'matplotlib'):
        pytest.importorskip(package, reason=f'{package}: absent; the benchmark needs it')
    make_camvid(tmp_path / 'sets/camvid')
    make_bccd(tmp_path / 'blood').rename(tmp_path / 'sets/bccd')
    page, out = tmp_path / 'page.md', tmp_path / 'out'
    block = begin_line('full-size'), end_line('full-size')
    page.write_text('\n'.join(('# Page', '', BEGIN, END, *block, '')))
    arguments = ('--out', out, '--data', tmp_path / 'sets', '--quick', '--page', page)
    assert call_tool(TOOL, *arguments) == 0
    told = capfd.readouterr().out

    result = json.loads(figures_path(page).read_text())
    assert page_text(result) in page.read_text()
    kept = [entry['results']['0']['density_after'] for entry in result['networks']]
    assert [found['not_zero'] for found in kept[:2]] == [1.0, pytest.approx(0.6, abs=1e-3)]
    starts = {entry['start']: entry['results']['0'] for entry in result['starts']}
    assert list(starts) == ['scratch', 'dense', 'sparse', 'sparse-unmasked']
    assert starts['sparse']['density_after']['by_mask'] == pytest.approx(0.6, abs=1e-3)
    assert starts['sparse-unmasked']['density_after']['by_mask'] == 1.0
    assert result['times']['networks'].keys() == {entry['network'] for entry in result['networks']}
    whole = json.loads(figures_path(page, 'full-size').read_text())
    assert full_size_text(whole) in page.read_text()
    (run,) = whole['runs']
    study = parts.long_runs(tmp_path / 'sets', out, plan.PRESETS['quick'], 1)
    classes = study.networks[0].cfg.val_dataloader.dataset.metainfo.classes
    assert list(run['classes']) == list(classes)
    # pixel by pixel as the evaluation during the training
    mean = sum(run['classes'].values()) / len(classes)
    assert mean == pytest.approx(run['scores']['mIoU'], abs=0.05)
    drawn = ('page.svg', 'page.png', 'page_fields.svg', 'page_predictions.png', 'page_cells.png')
    for path in (*(tmp_path / name for name in drawn), out / 'predictions.png'):
        assert path.stat().st_size > 1000, path

    # what is finished is not trained again, nor timed
    times = (out / 'times.json').stat().st_mtime_ns
    assert call_tool(TOOL, *arguments, '--parts', 'scratch,transfer,long,times') == 0
    again = capfd.readouterr().out
    assert (told.count(': begins;'), again.count(': begins;')) == (8, 0)
    assert len(re.findall(r'(\d+) of \1 runs are finished already', again)) == 3
    assert (out / 'times.json').stat().st_mtime_ns == times
