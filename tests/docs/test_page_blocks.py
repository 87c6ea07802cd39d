"""How the blocks of a page are found, and which rules they may break."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_blocks import ROOT, Block, all_pages, read_blocks, shown


def read(folder: Path, *lines: str) -> tuple[list[Block], list[str]]:
    page = folder / 'page.md'
    page.write_text('\n'.join(lines), encoding='utf-8')
    return read_blocks(page)


def test_blocks_in_their_order(tmp_path: Path) -> None:
    blocks, problems = read(
        tmp_path,
        'Text.',
        '```bash',
        'echo 1',
        '```',
        '- In a list:',
        '  ```python',
        '  if True:',
        '      pass',
        '  ```',
        '````text',
        '```',
        '````',
        '<!-- not run: needs a GPU -->',
        '```bash title="x"',
        'nvidia-smi',
        '```',
        '<!-- exit 2 -->',
        '```bash',
        'exit 2',
        '```',
        '<!-- hidden',
        '```bash',
        'touch a',
        '```',
        '-->',
    )
    assert problems == []
    assert [block.language for block in blocks] == ['bash', 'python', 'text', *['bash'] * 3]
    assert [block.line for block in blocks] == [3, 7, 11, 15, 19, 23]
    assert blocks[1].code == 'if True:\n    pass\n'
    assert [block.runs for block in blocks] == [True, True, False, False, True, True]
    assert [block.reason for block in blocks if block.reason] == ['needs a GPU']
    assert [block.exit_code for block in blocks] == [0, 0, 0, 0, 2, 0]
    assert [block.hidden for block in blocks] == [*[False] * 5, True]
    assert blocks[0].place == 'page.md:3'


@pytest.mark.parametrize(
    ('first', 'name'),
    [('# mine.py', 'mine.py'), ('# a comment', None), ('# ../mine.py', None), ('x = 1', None)],
)
def test_a_config_begins_with_its_name(tmp_path: Path, first: str, name: str | None) -> None:
    ((block,), problems) = read(tmp_path, '```python', first, '```')
    assert (block.config_name, problems) == (name, [])


@pytest.mark.parametrize(
    ('lines', 'problem'),
    [
        (['```', 'x', '```'], ':1: the block names no language'),
        (['~~~', 'x', '~~~'], ':1: the block names no language'),
        (['```sh', 'ls', '```'], ":1: language 'sh' is unknown"),
        (['```console', '$ ls', '```'], ":1: language 'console' is unknown"),
        (['```bash', 'ls'], ':1: the block is not closed'),
        (['```bash', 'if true', '```'], ':1: bash: '),
        (['```bash', 'cat <<END', 'x', '```'], ':1: bash: '),
        (['> ```bash', '> ls'], ':1: begin a block by a fence on a line of its own'),
        (['- text ~~~bash'], ':1: begin a block by a fence on a line of its own'),
        (['<pre><code>ls</code></pre>'], ':1: begin a block by a fence on a line of its own'),
        (['```python', 'x = 1', 'if', '```'], ':1: python: invalid syntax (line 3)'),
        (
            ['<!-- not run: needs a GPU -->', '```python', 'if', '```'],
            ':2: python: invalid syntax',
        ),
        (['<!-- not run: -->', '```bash', 'ls', '```'], ":1: cannot read '<!-- not run: -->'"),
        (['<!-- not run:   -->', '```bash', 'ls', '```'], ':1: cannot read'),
        (['<!-- not run -->', '```bash', 'ls', '```'], ':1: cannot read'),
        (['<!-- Not run: no -->', '```bash', 'ls', '```'], ':1: cannot read'),
        (['<!-- exit one -->', '```bash', 'ls', '```'], ':1: cannot read'),
        (['<!-- not run: no -->', '', '```bash', 'ls', '```'], ':1: no block begins in the line'),
        (['```bash', 'ls', '```', '<!-- not run: no -->'], ':4: no block begins in the line'),
        (['<!-- not run: no -->'], ':1: no block begins in the line'),
        (['<!-- not run: no -->', '```text', 'x', '```'], ':2: a block of text is never run'),
        (['<!-- exit 1 -->', '```python', 'x', '```'], ':2: only a bash block has an exit code'),
        (['<!-- hidden', '```bash', 'ls', '```', '', '-->'], ':2: a hidden block must be closed'),
        (['<!-- hidden', '```bash', 'ls', '```'], ':2: a hidden block must be closed'),
    ],
)
def test_broken_rules(tmp_path: Path, lines: list[str], problem: str) -> None:
    _, problems = read(tmp_path, *lines)
    assert len(problems) == 1
    assert problems[0].startswith(f'page.md{problem}')


def test_a_page_of_another_editor(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    first = ['\ufeff<!-- exit 1 -->', '```bash', 'false', '```']
    second = ['~~~python', 'x = "\u2028\x0c"', '~~~']
    page.write_bytes('\r\n'.join([*first, *second]).encode())
    (first, second), problems = read_blocks(page)
    assert problems == []
    assert (first.code, first.exit_code) == ('false\n', 1)
    assert second.code == 'x = "\u2028\x0c"\n'


def test_an_unread_comment_does_not_keep_a_block_from_running(tmp_path: Path) -> None:
    for comment in ('<!-- not run: -->', '<!-- not run: no -->\n'):
        ((block,), problems) = read(tmp_path, comment, '```bash', 'ls', '```')
        assert block.runs
        assert problems


def test_pages_are_readme_and_docs_but_not_the_reference() -> None:
    pages = [shown(page) for page in all_pages()]
    assert {'README.md', 'CHANGELOG.md', 'docs/backends.md', 'docs/layout.md'} <= set(pages)
    assert not [page for page in pages if page.startswith('docs/reference')]
    on_disk = {path.name for path in (ROOT / 'docs').glob('*.md')}
    assert on_disk <= {Path(page).name for page in pages}
