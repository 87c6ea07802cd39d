"""One training of the benchmark, in a process of its own; started by ``runs.py``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mmsw.apis import build_runner
from mmsw.apis.cli import run_reporting_errors

from ..locks import exclusive
from . import hook  # noqa: F401  (registers it)


def main(argv: Sequence[str] | None = None) -> int:
    """Train on one thread; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    torch.set_num_threads(1)

    def train() -> None:
        with exclusive(args.config.parent):
            build_runner(args.config).train()

    return run_reporting_errors(train)


if __name__ == '__main__':
    sys.exit(main())
