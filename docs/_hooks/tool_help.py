"""Puts the ``--help`` of every tool into docs/reference/tools.md, as it is when the site is built.

Run as a program it prints these texts as JSON; the tools are imported by a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = 'reference/tools.md'
PLACE = '<!-- here the site shows the help of every tool -->'
WIDTH = '90'


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """Called by mkdocs with the text of a page."""
    if page.file.src_uri != PAGE:
        return markdown
    from mkdocs.exceptions import PluginError

    texts = _texts()
    for call, text in texts.items():
        if str(ROOT) in text:
            raise PluginError(f'{call}: a folder of this machine stands in the help:\n{text}')
    if markdown.count(PLACE) != 1:
        raise PluginError(f'{PAGE} must contain once: {PLACE}')
    return markdown.replace(PLACE, '\n'.join(_section(*item) for item in texts.items()))


@functools.cache  # a server asks at every change of a page
def _texts() -> dict[str, str]:
    from mkdocs.exceptions import PluginError

    done = subprocess.run(
        [sys.executable, __file__], env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PluginError(f'the help of the tools cannot be shown:\n{done.stderr}')
    return json.loads(done.stdout)


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    return os.environ | {'COLUMNS': WIDTH, 'PYTHONPATH': os.pathsep.join(paths), 'NO_COLOR': '1'}


def _section(call: str, text: str) -> str:
    level = '##' if ' ' not in call else '###'
    return f'{level} {call}\n\n```text\n{text.rstrip()}\n```\n'


class _Caught(Exception):
    """Holds the parser of a tool, which has just been asked to parse."""


def _catch(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
    raise _Caught(self)


def help_texts() -> Iterator[tuple[str, str]]:
    """The name of every tool, and of its commands where it has some, with the help."""
    argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_intermixed_args = _catch
    for path in sorted((ROOT / 'tools').glob('[!_]*')):
        if path.suffix == '.sh':
            yield path.name, _head(path)
        elif path.suffix == '.py':
            sys.argv = [path.name]
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    runpy.run_path(str(path), run_name='__main__')
            except _Caught as caught:
                yield from _helps(caught.args[0], path.name)


def _helps(parser: argparse.ArgumentParser, call: str) -> Iterator[tuple[str, str]]:
    yield call, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from _helps(command, f'{call} {name}')


def _head(path: Path) -> str:
    """The comment that a shell script begins with."""
    lines = path.read_text(encoding='utf-8').splitlines()[1:]
    count = next(index for index, line in enumerate(lines) if not line.startswith('#'))
    return '\n'.join(line[2:] for line in lines[:count])


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT / 'tools'))  # as for a tool that is started
    print(json.dumps(dict(help_texts())))
