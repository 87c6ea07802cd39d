#!/usr/bin/env python
"""Measure every operator backend, the known ways to shift, and plain depthwise convolutions."""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_measurement
    from mmsw.benchmarks.operator.benchmark import benchmark_ops


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--out', metavar='DIR', required=True, help='folder for benchmark.md, .json, .svg and .png'
    )
    parser.add_argument('--device', default='cpu', help='cpu or cuda (%(default)s)')
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        '--quick', dest='preset', action='store_const', const='quick', default='default',
        help='a few minutes: v2 at 512, batch 1, the main contenders',
    )  # fmt: skip
    size.add_argument(
        '--full', dest='preset', action='store_const', const='full',
        help='everything: batch 1, 2 and 8 as well, and 1 and 2 threads; hours on a slow machine',
    )  # fmt: skip
    parser.add_argument(
        '--version', dest='versions', nargs='+', metavar='V', help='of v1 and v2 (both)'
    )
    parser.add_argument(
        '--crop', dest='crops', nargs='+', type=int, metavar='PIXELS', help='(224 512)'
    )
    parser.add_argument('--batch', dest='batches', nargs='+', type=int, metavar='B', help='(1 8)')
    parser.add_argument('--threads', nargs='+', type=int, metavar='T', help="(torch's own number)")
    parser.add_argument(
        '--sparsity', dest='sparsities', nargs='*', type=float, metavar='SHARE',
        help='pruned shares of the sweep (0 0.1 ... 0.9); no value skips it',
    )  # fmt: skip
    parser.add_argument(
        '--only', nargs='+', metavar='NAME',
        help="contenders whose names hold one of these, for instance 'mmsw cpp' folded (all)",
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of maps and kernels (%(default)s)')
    return parser.parse_args(argv)


_EPILOG = """\
An option given beside --quick or --full replaces what these choose.
Exit code: 0 done, 1 a contender failed or computed wrong numbers (see the report), 2 bad arguments.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_measurement(lambda: benchmark_ops(**vars(args)), args.out)


if __name__ == '__main__':
    sys.exit(main())
