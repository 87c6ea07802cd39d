#!/usr/bin/env python
"""Measure every operator backend, the known ways to shift, and plain depthwise convolutions.

Writes a report with tables, the same figures as JSON, and pictures.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_measurement
    from mmsw.benchmarks.command_line import add_measurement_arguments
    from mmsw.benchmarks.operator.benchmark import benchmark_ops


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    add_measurement_arguments(parser, "'mmsw cpp' folded")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        '--quick', dest='preset', action='store_const', const='quick', default='default',
        help='measure the main contenders only: v2, 512-pixel crop, batch 1 (a few minutes)',
    )  # fmt: skip
    size.add_argument(
        '--full', dest='preset', action='store_const', const='full',
        help='measure everything: batches 1, 2 and 8, 1 and 2 threads (hours on a slow machine)',
    )  # fmt: skip
    parser.add_argument(
        '--network-version', dest='versions', nargs='+', metavar='VERSION',
        help='versions of the network whose layers are measured, v1 or v2 (default: v1 v2)',
    )  # fmt: skip
    # The name it had before; it looks like the version of the program.
    parser.add_argument('--version', dest='versions', nargs='+', help=argparse.SUPPRESS)
    parser.add_argument(
        '--sparsity', dest='sparsities', nargs='*', type=float, metavar='SHARE',
        help='shares of pruned filters to measure, from 0 to below 1; without a value, skip this '
        'part (default: 0 0.1 0.2 ... 0.9)',
    )  # fmt: skip
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='random seed of the maps and the kernels (default: %(default)s)',
    )
    return parser.parse_args(argv)


_EPILOG = """\
--quick and --full change the defaults. Options that you give win over them.

Exit code: 0 done; 1 a contender failed or computed wrong numbers (see the report); 2 bad arguments.

Examples:
  python tools/benchmark_ops.py --out work_dirs/benchmark_ops --quick
  python tools/benchmark_ops.py --out work_dirs/benchmark_gpu --quick --device cuda --batch 1 16
  python tools/benchmark_ops.py --out work_dirs/cpp --only 'mmsw cpp' folded --network-version v2
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_measurement(lambda: benchmark_ops(**vars(args)), args.out, goes_on=True)


if __name__ == '__main__':
    sys.exit(main())
