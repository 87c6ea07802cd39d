"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mmsw.apis.cli import run_benchmark
from mmsw.apis.config_options import ConfigOptions

from .study import Study


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that every benchmark of training has."""
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder for the report, the picture and all runs',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        default=3,
        metavar='N',
        help='runs of each kind, with seeds 0 to N-1 (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        default={},
        metavar='KEY=VALUE',
        help='change settings of every config, as in tools/train.py',
    )
    parser.add_argument('--dry-run', action='store_true', help='print the planned runs and stop')


def add_measurement_arguments(parser: argparse.ArgumentParser, contenders: str) -> None:
    """Options that every benchmark of speed has.

    Args:
        parser: They are added to it.
        contenders: Parts of names of contenders, as an example in the help.
    """
    parser.add_argument(
        '--out',
        metavar='DIR',
        required=True,
        help='folder to write benchmark.md, benchmark.json and the pictures to',
    )
    parser.add_argument(
        '--device',
        default='cpu',
        metavar='DEVICE',
        help='device to measure: cpu, cuda or cuda:N (default: %(default)s)',
    )
    for option, name, unit, what in (
        ('--crop', 'crops', 'PIXELS', 'sides of the square images, in pixels (default: 224 512)'),
        ('--batch', 'batches', 'IMAGES', 'numbers of images per call (default: 1 8)'),
        (
            '--threads',
            'threads',
            'N',
            'numbers of CPU threads (default: the number that torch uses)',
        ),
    ):
        parser.add_argument(option, dest=name, nargs='+', type=int, metavar=unit, help=what)
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='NAME',
        help='measure only contenders whose names contain one of these, for instance '
        f'{contenders} (default: all contenders)',
    )
    parser.add_argument(
        '--page',
        dest='pages',
        nargs='+',
        default=[],
        metavar='FILE',
        help='also put tables into these Markdown pages, between their lines for them, and the '
        'figures beside them',
    )


def carry_out(study: Callable[[], Study], args: argparse.Namespace) -> int:
    """Carry out a study as its command line says.

    Args:
        study: Makes it; errors that the user can act on are told in one line.
        args: Parsed arguments, :func:`add_study_arguments` among them.

    Returns:
        Exit code: 1 if a run failed, else as of :func:`mmsw.apis.cli.run_benchmark`.
    """
    return run_benchmark(lambda: int(bool(study().carry_out(args.dry_run))), args.out)
