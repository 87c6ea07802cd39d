#!/usr/bin/env python
"""Measure whole backbones: this project's in every form, beside what else one would pick."""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_measurement
    from mmsw.benchmarks.model.benchmark import benchmark_model


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--out', metavar='DIR', required=True, help='folder for benchmark.md, .json, .svg and .png'
    )
    parser.add_argument('--device', default='cpu', help='cpu or cuda (%(default)s)')
    parser.add_argument(
        '--quick', dest='preset', action='store_const', const='quick', default='default',
        help='less than three minutes: the tiny networks at 512, batch 1',
    )  # fmt: skip
    parser.add_argument(
        '--crop', dest='crops', nargs='+', type=int, metavar='PIXELS', help='(224 512)'
    )
    parser.add_argument('--batch', dest='batches', nargs='+', type=int, metavar='B', help='(1 8)')
    parser.add_argument('--threads', nargs='+', type=int, metavar='T', help="(torch's own number)")
    parser.add_argument(
        '--mode', dest='modes', nargs='+', metavar='MODE', help="of eval and 'training step' (both)"
    )
    parser.add_argument(
        '--dtype', dest='dtypes', nargs='+', metavar='TYPE',
        help='of float32, bfloat16 and float16, the last two in eval alone (float32)',
    )  # fmt: skip
    parser.add_argument(
        '--only', nargs='+', metavar='NAME',
        help="contenders whose names hold one of these, for instance 'SW-T v2' ConvNeXt (all)",
    )  # fmt: skip
    parser.add_argument(
        '--limit', type=float, metavar='SECONDS',
        help='who takes longer for a call is left out (20, with --quick 6)',
    )  # fmt: skip
    parser.add_argument(
        '--channels-last', action='store_true', help='store maps and weights with channels last'
    )
    parser.add_argument(
        '--tf32', action='store_true', help='let a GPU round float32 products to TF32'
    )
    return parser.parse_args(argv)


_EPILOG = """\
An option given beside --quick replaces what this chooses.
Exit code: 0 done, 1 a contender failed or computed wrong numbers (see the report), 2 bad arguments.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_measurement(lambda: benchmark_model(**vars(args)), args.out)


if __name__ == '__main__':
    sys.exit(main())
