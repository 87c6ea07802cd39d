#!/usr/bin/env python
"""Export trained models in every format and precision, and compare the files with PyTorch.

Writes a report with a table for each model: errors of the outputs, scores on the test data of the
config, size and time. The same figures go to a JSON file.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_measurement
    from mmsw.benchmarks.export.benchmark import benchmark_export


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        required=True,
        help='folder to write benchmark.md, benchmark.json and the exported files to',
    )
    parser.add_argument(
        '--model',
        dest='models',
        nargs=2,
        action='append',
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a model to export; may be given several times (default: the segmentor and the '
        'detector of the demonstration)',
    )
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='NAME',
        help="measure only forms whose names contain one of these, for instance 'onnx int8' "
        'openvino (default: all forms)',
    )
    parser.add_argument(
        '--threads',
        type=int,
        metavar='N',
        help='number of CPU threads (default: the number that torch uses)',
    )
    parser.add_argument(
        '--calibrate',
        metavar='DIR',
        help='folder of images that int8 takes the ranges of values from (default: training images '
        'of the configs)',
    )
    parser.add_argument(
        '--page',
        metavar='FILE',
        help='also put the tables into this Markdown page, between its lines for them, and the '
        'figures beside it',
    )
    parser.add_argument(
        '--quick', dest='preset', action='store_const', const='quick', default='default',
        help='only float32 of each format and int8 of ONNX, with fewer samples',
    )  # fmt: skip
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 done; 1 a file was not what PyTorch is (see the report); 2 bad arguments.

Examples:
  python tools/benchmark_export.py --out work_dirs/benchmark_export
  python tools/benchmark_export.py --out DIR --model CONFIG CHECKPOINT.pth --only onnx --threads 1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_measurement(lambda: benchmark_export(**vars(args)), args.out)


if __name__ == '__main__':
    sys.exit(main())
