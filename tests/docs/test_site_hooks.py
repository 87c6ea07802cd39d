"""What the site makes of the comments for blocks, and where it takes the help of tools from."""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import ROOT

HOOKS = ROOT / 'docs' / '_hooks'


@pytest.mark.parametrize(
    ('page', 'shown'),
    [
        (
            'a\n\n<!-- not run: needs a "GPU" -->\n```bash\nls\n```\n',
            'a\n\n```bash title="Not run when these pages are built: needs a \'GPU\'"\nls\n```\n',
        ),
        (
            '  <!-- not run: no -->\n  ```python\n  x\n  ```\n',
            '  ```python title="Not run when these pages are built: no"\n  x\n  ```\n',
        ),
        ('<!-- exit 2 -->\n```bash\nls\n```\n', '```bash\nls\n```\n'),
        ('a\n<!-- hidden\n```bash\nls\n```\n-->\nb\n', 'a\nb\n'),
        ('<!-- a remark -->\n```bash\nls\n```\n', '<!-- a remark -->\n```bash\nls\n```\n'),
    ],
)
def test_comments_do_not_reach_the_site(page: str, shown: str) -> None:
    hook = runpy.run_path(str(HOOKS / 'block_comments.py'))['on_page_markdown']
    assert hook(page, page=None) == shown


def test_help_of_a_tool_and_of_its_commands() -> None:
    module = runpy.run_path(str(HOOKS / 'tool_help.py'))
    parser = argparse.ArgumentParser(prog='tool.py', description='What it does.')
    parser.add_subparsers().add_parser('voc', description='One of its commands.')
    texts = dict(module['_helps'](parser, 'tool.py'))
    assert list(texts) == ['tool.py', 'tool.py voc']
    assert 'What it does.' in texts['tool.py']
    assert 'One of its commands.' in texts['tool.py voc']


def test_help_of_a_script_is_the_comment_at_its_head(tmp_path: Path) -> None:
    script = tmp_path / 'a.sh'
    script.write_text('#!/bin/sh\n# One.\n#\n# Two.\nset -e\n# Three.\n', encoding='utf-8')
    assert runpy.run_path(str(HOOKS / 'tool_help.py'))['_head'](script) == 'One.\n\nTwo.'


def test_every_tool_is_shown() -> None:
    done = subprocess.run(
        [sys.executable, HOOKS / 'tool_help.py'],
        env=runpy.run_path(str(HOOKS / 'tool_help.py'))['_environment'](),
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    tools = {path.name for path in (HOOKS.parents[1] / 'tools').glob('[!_]*.*')}
    assert {call for call in json.loads(done.stdout) if ' ' not in call} == tools
