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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('path', metavar='PATH', help='file to write, .svg or .png')
    parser.add_argument('--big-kernel', type=int, default=51, help='focus length (%(default)s)')
    parser.add_argument('--small-kernel', type=int, default=3, help='side (%(default)s)')
    parser.add_argument('--num-reps', type=int, default=4, help='repetitions (%(default)s)')
    parser.add_argument('--sparsity', type=float, default=0.3, help='share pruned (%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the example weights (%(default)s)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(
        lambda: draw_operator(**vars(args)), also=(ImportError, ValueError, OSError)
    )


if __name__ == '__main__':
    sys.exit(main())
