#!/usr/bin/env python
"""Draw how filters, shifted and added, become one cross-shaped kernel."""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.analysis import draw_operator
    from mmsw.apis.cli import run_reporting_errors


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument('path', metavar='PATH', help='picture to write, .svg or .png')
    parser.add_argument(
        '--big-kernel',
        type=int,
        default=51,
        metavar='M',
        help='focus length M: the length of the long arms (default: %(default)s)',
    )
    parser.add_argument(
        '--small-kernel',
        type=int,
        default=3,
        metavar='N',
        help='side N of a small kernel (default: %(default)s)',
    )
    parser.add_argument(
        '--num-reps',
        type=int,
        default=4,
        metavar='R',
        help='number R of repetitions (default: %(default)s)',
    )
    parser.add_argument(
        '--sparsity',
        type=float,
        default=0.3,
        metavar='SHARE',
        help='share of the filters to prune, from 0 to below 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='random seed of the pattern and the example weights (default: %(default)s)',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/draw_operator.py work_dirs/shift_wise.png
  python tools/draw_operator.py work_dirs/small.png --big-kernel 13 --num-reps 1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(
        lambda: draw_operator(**vars(args)), also=(ImportError, ValueError, OSError)
    )


if __name__ == '__main__':
    sys.exit(main())
