"""Reading ``--cfg-options`` from a command line."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from mmengine.config import DictAction

_DICT = re.compile(r"""(^|[\[(,'"])(dict\(|\{['"])""")  # where a value begins


class ConfigOptions(DictAction):
    """As mmengine's action, which ends in a traceback or a wrong text at what it cannot read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Read the values, or end the program with one line and the exit code 2."""
        for given in values:
            key, sign, value = given.partition('=')
            if not (key and sign):
                _refuse(parser, option_string, given, 'expected KEY=VALUE, without spaces')
            if _DICT.search(value.replace(' ', '')):
                why = (
                    'a dict cannot be given as an option. Set its keys one by one (KEY.NAME=VALUE, '
                    'in lists KEY.0.NAME=VALUE), or write it into a config of your own'
                )
                _refuse(parser, option_string, given, why)
            try:
                self._parse_iterable(value)
            except (AssertionError, RecursionError):
                why = (
                    'its brackets do not go together; write lists as KEY=a,b or KEY="[(a,b),(c,d)]"'
                )
                _refuse(parser, option_string, given, why)
        super().__call__(parser, namespace, values, option_string)


def _refuse(parser: argparse.ArgumentParser, option: str | None, given: str, why: str) -> NoReturn:
    parser.exit(2, f'error: {option} {given}: {why}\n')
