#!/usr/bin/env python
"""Measure whole backbones: the shift-wise networks in every form, beside other common backbones.

Writes a report with tables, the same figures as JSON, and pictures.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_measurement
    from mmsw.benchmarks.command_line import add_measurement_arguments
    from mmsw.benchmarks.model.benchmark import benchmark_model


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    add_measurement_arguments(parser, "'SW-T v2' ConvNeXt")
    parser.add_argument(
        '--quick', dest='preset', action='store_const', const='quick', default='default',
        help='measure the tiny networks only: 512-pixel crop, batch 1 (less than three minutes)',
    )  # fmt: skip
    parser.add_argument(
        '--mode', dest='modes', nargs='+', metavar='MODE',
        help="what to measure: eval, 'training step' (default: both)",
    )  # fmt: skip
    parser.add_argument(
        '--dtype', dest='dtypes', nargs='+', metavar='TYPE',
        help='floating types: float32, bfloat16, float16; the last two in eval only '
        '(default: float32)',
    )  # fmt: skip
    parser.add_argument(
        '--limit', type=float, metavar='SECONDS',
        help='leave out contenders whose call takes longer than this many seconds (default: 20, '
        'with --quick 6)',
    )  # fmt: skip
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='store maps and weights in the memory format channels_last',
    )
    parser.add_argument(
        '--tf32', action='store_true', help='let the GPU use TF32 in float32 matrix products'
    )
    return parser.parse_args(argv)


_EPILOG = """\
--quick changes the defaults. Options that you give win over them.

Exit code: 0 done; 1 a contender failed or computed wrong numbers (see the report); 2 bad arguments.

Examples:
  python tools/benchmark_model.py --out work_dirs/benchmark_model --quick
  python tools/benchmark_model.py --out work_dirs/train --mode 'training step' --only 'SW-T v2'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_measurement(lambda: benchmark_model(**vars(args)), args.out)


if __name__ == '__main__':
    sys.exit(main())
