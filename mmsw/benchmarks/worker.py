"""One training of a benchmark, in a process of its own; started by ``execution.py``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mmsw.apis import build_runner
from mmsw.apis.cli import leave, run_reporting_errors

from .locks import exclusive


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or go on with a training that was stopped; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    parser.add_argument('--launcher', default='none')
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)
    is_first = os.environ.get('RANK', '0') == '0'

    def train() -> None:
        with exclusive(args.config.parent) if is_first else nullcontext():
            build_runner(args.config, resume='auto', launcher=args.launcher).train()

    return run_reporting_errors(train)


def _leave(number: int, frame: object) -> None:
    """End in order: the processes of the data loaders outlive a process that is cut off."""
    sys.exit(128 + number)


if __name__ == '__main__':
    leave(main())
