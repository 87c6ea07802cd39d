"""One training of the benchmark, in a process of its own; started by ``runs.py``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mmsw.apis import build_runner
from mmsw.apis.cli import run_reporting_errors

from ..locks import exclusive
from . import hook  # noqa: F401  (registers it)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or go on with a training that was stopped; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--launcher', default='none')
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--auto-scale-lr', action='store_true')
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)

    def train() -> None:
        with exclusive(Path(args.config).parent) if _is_first() else nullcontext():
            build_runner(
                args.config,
                resume='auto',
                amp=args.amp,
                launcher=args.launcher,
                auto_scale_lr=args.auto_scale_lr,
            ).train()

    return run_reporting_errors(train)


def _is_first() -> bool:
    return os.environ.get('RANK', '0') == '0'


def _leave(number: int, frame: object) -> None:
    """End in order: the processes of the data loaders outlive a process that is cut off."""
    sys.exit(128 + number)


if __name__ == '__main__':
    sys.exit(main())
