"""The page of troubleshooting quotes messages that the code still has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GAP = '…'  # on the page: a name or a number


def quoted() -> list[str]:
    """Messages of mmsw that the page has as headings."""
    page = (ROOT / 'docs/faq.md').read_text(encoding='utf-8')
    section = page.split('\n## Messages of mmsw\n')[1].split('\n## ')[0]
    return re.findall(r'^### `(.+)`$', section, flags=re.MULTILINE)


def texts(tree: ast.AST) -> Iterator[str]:
    """Texts of a file, those in pieces as one, with a gap for what is put in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
            yield ''.join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r'%[rsd]', GAP, node.value)  # of logging


@pytest.fixture(scope='module')
def source() -> list[str]:
    files = [*(ROOT / 'mmsw').rglob('*.py'), *(ROOT / 'tools').glob('*.py')]
    return [text for path in files for text in texts(ast.parse(path.read_text('utf-8')))]


def says(source: list[str], message: str) -> bool:
    """Whether a text of the source has the words of a message in their order."""
    pieces = message.strip(f'{GAP} :').split(GAP)
    return any(in_order(pieces, text) for text in source if pieces[0] in text)


def in_order(pieces: list[str], text: str) -> bool:
    for piece in pieces:
        _, found, text = text.partition(piece)
        if not found:
            return False
    return True


def test_the_page_has_messages() -> None:
    messages = quoted()
    assert len(messages) > 35
    assert len(set(messages)) == len(messages)
    assert all(max(map(len, message.split(GAP))) > 12 for message in messages)


@pytest.mark.parametrize('message', quoted())
def test_the_code_says_what_the_page_quotes(source: list[str], message: str) -> None:
    assert says(source, message)


def test_a_message_that_nobody_says_is_noticed(source: list[str]) -> None:
    assert not says(source, f'config file {GAP} is not there (working folder: {GAP})')
