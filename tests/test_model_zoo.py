"""The page of the model zoo is what the metafile says, and README says no other figures."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest
import yaml
from config_helpers import ROOT

from mmsw.apis import UsageError
from mmsw.apis.model_zoo import model_zoo_page

METAFILE = ROOT / 'configs' / 'metafile.yml'
PAGE = ROOT / 'docs' / 'model_zoo.md'


def call(*arguments: str) -> int:
    return runpy.run_path(str(ROOT / 'tools' / 'make_model_zoo.py'))['main'](list(arguments))


def test_page_is_what_the_tool_writes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    written = tmp_path / 'new' / 'page.md'
    assert call('--out', str(written)) == 0
    assert written.read_text(encoding='utf-8') == PAGE.read_text(encoding='utf-8')
    assert call('--out', str(written), '--check') == 0
    with written.open('a', encoding='utf-8') as file:
        file.write('more\n')
    before = written.read_bytes()
    assert call('--out', str(written), '--check') == 1
    assert f'run tools/make_model_zoo.py --out {written}' in capsys.readouterr().out
    assert written.read_bytes() == before
    assert call('--out', str(tmp_path / 'absent.md'), '--check') == 1


def test_page_has_every_model_and_every_neighbour() -> None:
    page = model_zoo_page()
    models = yaml.safe_load(METAFILE.read_text(encoding='utf-8'))['Models']
    for model in models:
        cell = f'| `{model["Config"].removeprefix("configs/")}` |'
        (row,) = [line for line in page.splitlines() if line.startswith(cell)]
        assert f'{model["Metadata"]["Parameters"]:,}' in row
        untrained = model['Metadata']['Training Data'] in ('ADE20K', 'COCO 2017')
        assert ('not trained here' in row) == untrained
        for result in model.get('Results', []):
            assert all(f'{value}%' in row for value in result['Metrics'].values())
    neighbours = yaml.safe_load((ROOT / 'configs' / 'published.yml').read_text(encoding='utf-8'))
    for row in neighbours:
        assert f'| {row["Network"]} | {row["Top-1"]} |' in page
        assert row['Source'].count('/') == 1


def test_missing_file_is_named(tmp_path: Path) -> None:
    shutil.copy(METAFILE, tmp_path)
    with pytest.raises(UsageError, match=r'published\.yml does not exist'):
        model_zoo_page(tmp_path)


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('', '[', 'cannot be read: while parsing'),
        ('Models:', 'Model:', 'must hold a list under Models'),
        ('Training Data: ADE20K', 'Training Data: ADE', "_t_ade20k misses .* 'ADE', expected"),
        ('      Start: published', '', "_t_ade20k misses .* KeyError: 'Start'"),
        ('Parameters: 62514776', 'Parameters: many', '_t_ade20k misses .* ValueError'),
    ],
)
def test_a_metafile_that_says_too_little(tmp_path: Path, old: str, new: str, message: str) -> None:
    shutil.copy(METAFILE.with_name('published.yml'), tmp_path)
    text = METAFILE.read_text(encoding='utf-8').replace(old, new, 1)
    (tmp_path / 'metafile.yml').write_text(text, encoding='utf-8')
    with pytest.raises(UsageError, match=rf'metafile\.yml:? .*{message}'):
        model_zoo_page(tmp_path)


def test_readme_repeats_the_metafile() -> None:
    models = {
        Path(model['Config']).name: model['Metadata']
        for model in yaml.safe_load(METAFILE.read_text(encoding='utf-8'))['Models']
    }
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| `(\w+\.py)` \| .*? \| ([\d,]+) \| ([\d.]+) \| (.*)\|$', text, re.M)
    assert len(rows) > 2
    for name, parameters, gmac, published in rows:
        facts = models[name]
        assert parameters == f'{facts["Parameters"]:,}'
        assert gmac == f'{facts["Multiply-adds (GMAC)"]:.3f}'
        figures = [str(value) for key, value in facts.items() if key.startswith('Published')]
        assert all(figure in published for figure in figures)
        assert bool(figures) == bool(published.strip())
