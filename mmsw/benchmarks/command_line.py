"""What the command lines of the benchmarks of training have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mmsw.apis.cli import run_benchmark
from mmsw.apis.config_options import ConfigOptions

from .study import Study


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that every benchmark of training has."""
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds (%(default)s)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        default={},
        metavar='KEY=VALUE',
        help='changes to every config, as for tools/train.py',
    )
    parser.add_argument('--dry-run', action='store_true', help='print the plan and stop')


def carry_out(study: Callable[[], Study], args: argparse.Namespace) -> int:
    """Carry out a study as its command line says.

    Args:
        study: Makes it; errors that the user can act on are told in one line.
        args: Parsed arguments, :func:`add_study_arguments` among them.

    Returns:
        Exit code: 1 if a run failed, else as of :func:`mmsw.apis.cli.run_benchmark`.
    """
    return run_benchmark(lambda: int(bool(study().carry_out(args.dry_run))), args.out)
