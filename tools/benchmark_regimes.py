#!/usr/bin/env python
"""Train small networks with zeros in them in every way that mmengine offers, and count the zeros.

Each network is trained with three optimizers in every regime, with KeepSparsityHook and, as a
control, without. The counts go to a report and a JSON file.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_measurement
    from mmsw.benchmarks.regimes.benchmark import benchmark_regimes


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        required=True,
        help='folder to write benchmark.md, benchmark.json and the logs of the processes to',
    )
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='NAME',
        help='run only cells whose names contain one of these, for instance resnet/AdamW or ddp '
        '(default: all cells)',
    )
    parser.add_argument(
        '--page',
        metavar='FILE',
        help='also put the tables into this Markdown page, between its lines for them, and the '
        'counts beside it',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 no zero was lost; 1 a cell lost zeros or proves nothing (see the report); 2 bad
arguments, or a process failed.

Examples:
  python tools/benchmark_regimes.py --out work_dirs/benchmark_regimes
  python tools/benchmark_regimes.py --out DIR --only resnet/AdamW swin/SGD/ddp
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_measurement(lambda: benchmark_regimes(**vars(args)), args.out)


if __name__ == '__main__':
    sys.exit(main())
