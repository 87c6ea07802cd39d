"""JSON files say what they are, and a newer or foreign one is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsw.errors import UsageError
from mmsw.json_file import VERSIONS, read_json, write_json


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'found.json'


def test_there_and_back(path: Path) -> None:
    content = {'name': 'Größe', 'numbers': [1, 0.1, None]}
    write_json(path, 'sparsity', content)
    assert json.loads(path.read_bytes()) == {'format': 'mmsw.sparsity/1', **content}
    assert 'Größe'.encode() in path.read_bytes()
    assert read_json(path, 'sparsity') == content


def test_absent_is_none(path: Path) -> None:
    assert read_json(path, 'sparsity') is None


@pytest.mark.parametrize('named', ['', '"format": 1, '])
def test_a_file_from_before_the_formats_had_names(path: Path, named: str) -> None:
    path.write_text(f'{{{named}"density": 0.6}}', encoding='utf-8')
    assert read_json(path, 'sparsity') == {'density': 0.6}


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_what_is_not_finite_is_no_json_and_leaves_the_old_file(path: Path, number: float) -> None:
    write_json(path, 'sparsity', {'density': 1.0})
    with pytest.raises(ValueError, match='JSON compliant'):
        write_json(path, 'sparsity', {'density': number})
    assert read_json(path, 'sparsity') == {'density': 1.0}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"format": "mmsw.sparsity/2"}', r'has the format mmsw\.sparsity/2; .*up to .*/1'),
        ('{"format": "mmsw.complexity/1"}', r"its format is 'mmsw\.complexity/1', expected mmsw"),
        ('{"format": 2}', r'has the format mmsw\.sparsity/2; '),
        ('{"format": true}', 'its format is True, expected'),
        ('[1, 2]', 'holds a list, expected an object'),
        ('{"density": ', r'found\.json is no JSON file'),
    ],
)
def test_what_cannot_be_read_is_named(path: Path, text: str, message: str) -> None:
    path.write_text(text, encoding='utf-8')
    with pytest.raises(UsageError, match=message):
        read_json(path, 'sparsity')


def test_a_kind_has_a_version() -> None:
    with pytest.raises(KeyError):
        write_json(Path('nowhere.json'), 'unheard_of', {})
    assert all(isinstance(version, int) and version >= 1 for version in VERSIONS.values())
