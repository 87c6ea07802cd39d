"""No file of the repository is about the machine it was written on."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = r'(?<![\w.}/*])/(?:work|root|home|opt|tmp)'
IN_TEXT = re.compile(
    rf'{FOLDERS}\b'  # a reader has no such folder
    r'|--(?:extra-)?index-url|pypi\.org|files\.pythonhosted'  # a reader's own settings say where
)
IN_BINARY = re.compile(rf'{FOLDERS}/[\w.-]+/')


def found_in(content: bytes) -> list[str]:
    try:
        return IN_TEXT.findall(content.decode('utf-8'))
    except UnicodeDecodeError:
        return IN_BINARY.findall(content.decode('latin-1'))


@pytest.mark.parametrize(
    ('content', 'number'),
    [
        (b'see /%b/x and "/%b"' % (b'tmp', b'root'), 2),
        (b'pip install --%b-url=x' % b'index', 1),
        (b'a/%b/b, ${base}/tmp, ../home/x, .tmp, work_dirs/demo, /workers' % b'work', 0),
        (b'\xff\x00/%b/run/iter_2.pth\x00' % b'tmp', 1),
        (b'\xff\x00run/iter_2.pth /tmp', 0),
    ],
)
def test_what_is_found(content: bytes, number: int) -> None:
    assert len(found_in(content)) == number


def test_no_file_names_a_folder_of_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip('git: this copy of the repository is no checkout')
    paths = [ROOT / name for name in listed.stdout.split('\0') if name]
    assert len(paths) > 300
    here = Path(__file__).resolve()
    found = {path: found_in(path.read_bytes()) for path in paths if path.is_file() and path != here}
    found = {str(path.relative_to(ROOT)): parts for path, parts in found.items() if parts}
    assert found == {}


def calls_without_encoding(path: Path) -> list[str]:
    """Places where a file is read or written as text in whatever encoding the machine has."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, 'id', None)
        named = {word.arg: word.value for word in node.keywords}
        if name == 'open':  # open(file, mode, ...), path.open(mode, ...)
            place = 0 if method else 1
            mode = node.args[place] if len(node.args) > place else named.get('mode')
            text = not (isinstance(mode, ast.Constant) and 'b' in mode.value)
        else:  # path.read_text(encoding, ...), path.write_text(text, encoding, ...)
            place = {'read_text': 0, 'write_text': 1}.get(name, -1) if method else -1
            text = place >= 0 and len(node.args) <= place
        if text and 'encoding' not in named:
            found.append(f'{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}')
    return found


def test_text_files_name_their_encoding() -> None:
    """Where the machine's encoding is not UTF-8, writing a multiplication sign would fail."""
    sources = [*ROOT.glob('*.py'), *(ROOT / 'mmsw').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
    assert len(sources) > 100
    wrong = [place for path in sources for place in calls_without_encoding(path)]
    not_text = ('Image.open', 'os.open', 'Frames.open')  # have no encoding
    assert [place for place in wrong if not place.endswith(not_text)] == []


def test_modules_of_tests_have_names_of_their_own() -> None:
    """pytest cannot collect two of one name."""
    names = Counter(path.name for path in (ROOT / 'tests').rglob('test_*.py'))
    assert [name for name, number in names.items() if number > 1] == []
