"""What a repository shows to strangers: workflows, templates, CITATION.cff, CONTRIBUTING.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from mmsw.version import __version__

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))
FORMS = [
    path
    for path in sorted((ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yml'))
    if path.name != 'config.yml'
]
PAGES = ['CONTRIBUTING.md', 'SECURITY.md', 'CODE_OF_CONDUCT.md']
by_name = dict(ids=lambda path: path.name)


def text_of(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding='utf-8')


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow['jobs'].values() for step in job['steps']]


def commands(name: str) -> list[list[str]]:
    """The shell commands of a workflow, split into words."""
    workflow = yaml.safe_load(text_of(f'.github/workflows/{name}.yml'))
    lines = [line for step in steps(workflow) for line in step.get('run', '').splitlines()]
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize('path', WORKFLOWS, **by_name)
def test_workflow_asks_for_little(path: Path) -> None:
    """It may read the code and nothing else, a new push ends the old run, and no run is endless."""
    text = text_of(path)
    workflow = yaml.safe_load(text)
    assert workflow['permissions'] == {'contents': 'read'}
    assert workflow['concurrency']['cancel-in-progress'] is True
    assert 'secrets.' not in text
    for job in workflow['jobs'].values():
        assert job['timeout-minutes'] <= 180
        assert 'permissions' not in job
    used = [step['uses'] for step in steps(workflow) if 'uses' in step]
    assert 'actions/checkout' in {name.partition('@')[0] for name in used}
    assert [name for name in used if not re.fullmatch(r'actions/[a-z-]+@v\d+', name)] == []


def test_workflows_call_what_a_developer_calls() -> None:
    assert [path.stem for path in WORKFLOWS] == ['build', 'ci', 'docs']
    assert ['.ci/run'] in commands('ci')
    assert ['make', 'docs'] in commands('docs')
    built = yaml.safe_load(text_of('.github/workflows/build.yml'))['jobs']['build']
    systems = built['strategy']['matrix']['os']
    assert {name.partition('-')[0] for name in systems} == {'macos', 'ubuntu'}
    assert [
        name for name in systems if name.startswith('ubuntu') and not name.endswith('arm')
    ] == []
    compiling = [step for step in built['steps'] if '--no-build-isolation' in step.get('run', '')]
    assert [step['env'] for step in compiling] == [{'MMSW_BUILD_OPS': '1'}] * 2


def test_what_workflows_and_pages_name_is_there() -> None:
    targets = set(re.findall(r'^([a-z-]+):', text_of('Makefile'), flags=re.MULTILINE))
    words = [words for path in WORKFLOWS for words in commands(path.stem)]
    made = {line[1] for line in words if line[0] == 'make'}
    made |= {name for page in PAGES for name in re.findall(r'`make ([a-z-]+)', text_of(page))}
    assert 'test-versions' in made
    assert made <= targets
    files = {
        word for line in words for word in line if word.startswith(('tests/', 'requirements/'))
    }
    files |= {
        name
        for page in PAGES
        for name in re.findall(
            r'[`(]((?:docs|tests|mmsw|tools)/[\w./-]+)(?![\w./*-])', text_of(page)
        )
    }
    assert len(files) > 10
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []


def test_the_selection_for_versions_is_there() -> None:
    found = re.search(r'^VERSION_TESTS := (.*?)\)$', text_of('Makefile'), flags=re.M | re.S)
    names = found[1].replace('\\', ' ').replace('$(addprefix tests/,', ' ').split()
    assert len(names) > 15
    assert [name for name in names if not (ROOT / 'tests' / name).exists()] == []


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(text_of('CITATION.cff'))
    assert {'cff-version', 'message', 'title', 'authors', 'license'} <= citation.keys()
    assert citation['version'] == __version__
    (paper,) = citation['references']
    assert paper['title'].startswith('ShiftwiseConv: ')
    assert paper['url'].endswith('2401.12736')
    assert [sorted(author) for author in paper['authors']] == [['family-names', 'given-names']] * 4


@pytest.mark.parametrize('path', FORMS, **by_name)
def test_issue_form_is_valid(path: Path) -> None:
    form = yaml.safe_load(text_of(path))
    assert form['name']
    assert form['description']
    fields = [part for part in form['body'] if part['type'] != 'markdown']
    ids = [part['id'] for part in fields]
    assert len(set(ids)) == len(ids) > 0
    assert {part['type'] for part in fields} <= {'textarea', 'input', 'dropdown', 'checkboxes'}
    assert all(part['attributes']['label'] for part in fields)
    assert any(part.get('validations', {}).get('required') for part in fields)


def test_a_bug_comes_with_the_table() -> None:
    assert [path.stem for path in FORMS] == ['bug', 'feature', 'question']
    form = yaml.safe_load(text_of('.github/ISSUE_TEMPLATE/bug.yml'))
    (field,) = [part for part in form['body'] if part.get('id') == 'environment']
    assert 'tools/check_env.py --table' in field['attributes']['description']
    assert field['validations'] == {'required': True}
    config = yaml.safe_load(text_of('.github/ISSUE_TEMPLATE/config.yml'))
    assert config['blank_issues_enabled'] is False


def test_root_files_are_in_the_source_distribution() -> None:
    included = text_of('MANIFEST.in').split()
    assert {*PAGES, 'CITATION.cff', 'README.md', 'CHANGELOG.md'} <= set(included)


def test_the_example_of_a_golden_test_passes_and_can_fail(data_dir: Path) -> None:
    (example,) = re.findall(r'```python\n(.*?)```', text_of('CONTRIBUTING.md'), flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, 'CONTRIBUTING.md', 'exec'), names)
    names['test_outputs'](data_dir, '51_5_r4')
    add = names['shift_add']
    names['shift_add'] = lambda *args: [1.001 * output for output in add(*args)]
    with pytest.raises(AssertionError):
        names['test_outputs'](data_dir, '51_5_r4')
