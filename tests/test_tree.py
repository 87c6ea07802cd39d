"""No file of the repository is about the machine it was written on."""

from __future__ import annotations

import re
import subprocess
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
