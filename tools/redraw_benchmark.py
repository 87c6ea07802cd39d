#!/usr/bin/env python
"""Draw the picture of a finished benchmark again; nothing is trained or measured.

Reads the --out folder of benchmark_ops.py, benchmark_model.py, benchmark_transfer.py or
benchmark_sparsity.py, written by any version of mmsw.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.benchmarks.redraw import redraw


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument('folder', metavar='DIR', help='folder that the benchmark wrote to')
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='picture to write, as .svg and as .png (default: the name and place that the '
        'benchmark uses)',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 done; 2 there are no results to draw.

Examples:
  python tools/redraw_benchmark.py work_dirs/transfer
  python tools/redraw_benchmark.py work_dirs/transfer --out work_dirs/transfer_again.svg
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(
        lambda: print(f'wrote {redraw(args.folder, args.out)} and .png'),
        also=(ImportError, OSError),
    )


if __name__ == '__main__':
    sys.exit(main())
