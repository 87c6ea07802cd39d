#!/usr/bin/env python
"""Draw the picture of a finished benchmark again; nothing is trained or measured.

Reads what benchmark_ops.py, benchmark_model.py, benchmark_transfer.py or benchmark_sparsity.py
wrote to its --out, from whichever version of mmsw.
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
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', metavar='DIR', help="the benchmark's --out")
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='picture to write, as .svg and .png (default: in DIR, as the benchmark names it)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(
        lambda: print(f'wrote {redraw(args.folder, args.out)} and .png'),
        also=(ImportError, OSError),
    )


if __name__ == '__main__':
    sys.exit(main())
