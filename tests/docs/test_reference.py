"""The reference leaves out nothing: every public name has an entry, and every tool a line."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
from page_blocks import ROOT
from test_public_api import PUBLIC

from mmsw import errors

REFERENCE = ROOT / 'docs' / 'reference'
MORE = (
    'mmsw.analysis.complexity',
    'mmsw.analysis.receptive_field',
    'mmsw.analysis.sparsity',
    'mmsw.deploy',
    'mmsw.deploy.export',
)
# The function has the name of its module, which is what static analysis finds under it.
WRITTEN = {'mmsw.apis.inference': 'mmsw.apis.inference.inference'}


def entries(page: str) -> list[str]:
    """The objects that a page of the reference describes."""
    text = (REFERENCE / f'{page}.md').read_text(encoding='utf-8')
    return re.findall(r'^::: (\S+)$', text, flags=re.MULTILINE)


def page_of(package: str) -> str:
    return package.split('.')[1]


@pytest.mark.parametrize('page', sorted({page_of(p) for p in [*PUBLIC, *MORE] if p != 'mmsw'}))
def test_every_public_name_has_an_entry(page: str) -> None:
    packages = [p for p in [*PUBLIC, *MORE] if p != 'mmsw' and page_of(p) == page]
    names = [f'{p}.{name}' for p in packages for name in importlib.import_module(p).__all__]
    assert sorted(entries(page)) == sorted(WRITTEN.get(name, name) for name in names)


def test_every_error_has_an_entry() -> None:
    names = [name for name, kind in vars(errors).items() if inspect.isclass(kind)]
    assert entries('errors') == [f'mmsw.errors.{name}' for name in names]


def test_every_page_stands_in_the_index_and_in_the_navigation() -> None:
    pages = {path.stem for path in REFERENCE.glob('*.md')} - {'index', 'tools'}
    index = (REFERENCE / 'index.md').read_text(encoding='utf-8')
    navigation = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
    assert set(re.findall(r'^\| \[mmsw\.\w+\]\((\w+)\.md\)', index, flags=re.MULTILINE)) == pages
    assert set(re.findall(r'mmsw\.\w+: reference/(\w+)\.md', navigation)) == pages


def test_every_tool_has_a_line() -> None:
    text = (REFERENCE / 'tools.md').read_text(encoding='utf-8')
    lines = re.findall(r'^\| `(\S+)` \| \S.*\|$', text, flags=re.MULTILINE)
    tools = [path.name for path in (ROOT / 'tools').glob('[!_]*.*')]
    assert sorted(lines) == sorted(tools)
