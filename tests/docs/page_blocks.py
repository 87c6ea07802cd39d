"""The code blocks of a page: which there are, which are run, and what is wrong with how they stand.

CONTRIBUTING.md has the rules for writers. In short: a fence names its language; a ``bash`` or
``python`` block runs unless the line above it is ``<!-- not run: REASON -->``; ``<!-- exit 1 -->``
above a bash block is the exit code that it ends with; a fence between the lines ``<!-- hidden`` and
``-->`` runs, and readers do not see it; a python block that begins with ``# NAME.py`` is a config.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ('bash', 'python')
SHOWN = ('text', 'json', 'yaml', 'toml', 'ini', 'diff', 'bibtex', 'dockerfile', 'html', 'css')

_FENCE = re.compile(r'^(?P<indent>\s*)(?P<ticks>`{3,}|~{3,})\s*(?P<language>[^\s`]*)')
_NOT_RUN = re.compile(r'^\s*<!-- not run: (?P<reason>\S.*?) -->$')
_EXIT = re.compile(r'^\s*<!-- exit (?P<code>\d+) -->$')
_HIDDEN = re.compile(r'^\s*<!-- hidden$')
_MEANT = re.compile(r'^\s*<!--\s*(not[ -]?run|exit|hidden)\b', re.IGNORECASE)
_CONFIG = re.compile(r'^# (?P<name>\w[\w-]*\.py)$')
# Code that is shown and is no block: a fence behind the sign of a quotation or a list, HTML.
_DISGUISED = re.compile(r'^\s*(?:(?:>|[-*+]\s|\d+[.)]\s).*?(?:`{3,}|~{3,})|.*<pre\b)')


class PageError(AssertionError):
    """A page breaks a rule, or one of its blocks does not do what the page says."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: The file it stands in.
        line: Number of its first line of code.
        language: What stands behind the fence; '' if nothing does.
        code: Its text, without the indentation of the fence.
        reason: Why it is not run, or None if it is.
        exit_code: What a bash block ends with.
        hidden: Whether readers do not see it.
    """

    page: Path
    line: int
    language: str
    code: str
    reason: str | None = None
    exit_code: int = 0
    hidden: bool = False

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.reason is None

    @property
    def config_name(self) -> str | None:
        """The file that the block is the text of, or None if it is no config."""
        first = self.code.partition('\n')[0]
        match = _CONFIG.match(first) if self.language == 'python' else None
        return match['name'] if match else None

    @property
    def place(self) -> str:
        return f'{shown(self.page)}:{self.line}'


def shown(page: Path) -> str:
    """The path of a page as messages print it."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def all_pages() -> list[Path]:
    """README, what the site includes, and every page in docs/ that is written by hand."""
    outside = [ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')]
    inside = sorted((ROOT / 'docs').rglob('*.md'))
    reference = ROOT / 'docs' / 'reference'
    return [page for page in outside if page.is_file()] + [
        page for page in inside if reference not in page.parents
    ]


def read_blocks(page: Path) -> tuple[list[Block], list[str]]:
    """The blocks of a page, and what breaks the rules, as lines that name page and line."""
    lines = page.read_text(encoding='utf-8-sig').removesuffix('\n').split('\n')
    blocks, problems, last = [], [], -1
    for start, end in _fences(lines):
        if end == len(lines):
            problems.append(f'{shown(page)}:{start + 1}: the block is not closed')
        blocks.append(_block(page, lines, start, end))
        problems += _problems_above(page, lines, last + 1, start)
        problems += _problems_of(blocks[-1], lines, start, end)
        last = end
    problems += _problems_above(page, lines, last + 1, len(lines))
    return blocks, problems


def _fences(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Indices of the lines that open and close each block."""
    index = 0
    while index < len(lines):
        opened = _FENCE.match(lines[index])
        if opened:
            closing = re.compile(rf'^\s*{opened["ticks"][0]}{{{len(opened["ticks"])},}}\s*$')
            start, index = index, index + 1
            while index < len(lines) and not closing.match(lines[index]):
                index += 1
            yield start, index
        index += 1


def _block(page: Path, lines: list[str], start: int, end: int) -> Block:
    above = lines[start - 1] if start else ''
    reason, code = _NOT_RUN.match(above), _EXIT.match(above)
    return Block(
        page=page,
        line=start + 2,
        language=_FENCE.match(lines[start])['language'],
        code=textwrap.dedent(''.join(f'{line}\n' for line in lines[start + 1 : end])),
        reason=reason['reason'] if reason else None,
        exit_code=int(code['code']) if code else 0,
        hidden=bool(_HIDDEN.match(above)),
    )


def _problems_above(page: Path, lines: list[str], first: int, fence: int) -> list[str]:
    """Comments between two blocks that are meant for a block and reach none; code that is none."""
    problems = []
    for index in range(first, fence):
        place = f'{shown(page)}:{index + 1}'
        if _DISGUISED.match(lines[index]):
            problems.append(f'{place}: begin a block by a fence on a line of its own')
        if not _MEANT.match(lines[index]):
            continue
        known = any(rule.match(lines[index]) for rule in (_NOT_RUN, _EXIT, _HIDDEN))
        if not known:
            problems.append(
                f'{place}: cannot read {lines[index].strip()!r}; write <!-- not run: REASON -->, '
                '<!-- exit CODE --> or <!-- hidden'
            )
        elif index + 1 != fence or fence == len(lines):
            problems.append(f'{place}: no block begins in the line below this comment')
    return problems


def _problems_of(block: Block, lines: list[str], start: int, end: int) -> list[str]:
    problems = []
    if not block.language:
        problems.append('the block names no language; output is text')
    elif block.language not in RUN + SHOWN:
        problems.append(f'language {block.language!r} is unknown; use bash, python or text')
    elif block.language in SHOWN and (block.reason or block.hidden):
        problems.append(f'a block of {block.language} is never run, and is no input either')
    if block.exit_code and block.language != 'bash':
        problems.append('only a bash block has an exit code')
    if block.hidden and (end + 1 >= len(lines) or lines[end + 1].strip() != '-->'):
        problems.append('a hidden block must be closed by the line --> right below it')
    if block.language in RUN:
        problems += _syntax_errors(block)
    return [f'{shown(block.page)}:{start + 1}: {problem}' for problem in problems]


def _syntax_errors(block: Block) -> list[str]:
    """What the language itself says of the text; blocks that are not run are looked at as well."""
    if block.language == 'python':
        try:
            compile(block.code, block.place, 'exec')
        except SyntaxError as error:
            return [f'python: {error.msg} (line {block.line - 1 + (error.lineno or 1)})']
        return []
    done = subprocess.run(
        ['bash', '-n'], input=block.code, capture_output=True, text=True, check=False
    )
    # An open here-document is only warned of.
    return [f'bash: {done.stderr.strip()}'] if done.returncode or done.stderr else []
