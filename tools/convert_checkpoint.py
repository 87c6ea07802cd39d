#!/usr/bin/env python
"""Convert a published shift-wise checkpoint into this project's form and report what it holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.convert import convert_checkpoint


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', metavar='SRC', help='published checkpoint, or one of this project')
    parser.add_argument('dst', metavar='DST', help='file to write; replaced if it exists')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='unpickle whatever SRC asks for; this can run any code, so use it for files of known '
        'origin only',
    )
    parser.add_argument(
        '--big-kernels',
        type=int,
        nargs=4,
        metavar='M',
        help="focus length of each stage (default: the file's own, else 51 49 47 13)",
    )
    parser.add_argument(
        '--ghost-ratio',
        type=float,
        help="share of channels that bypass (default: the file's own, else 0.23)",
    )
    parser.add_argument(
        '--num-reps', type=int, help="repetitions of the shifts (default: the file's own, else 4)"
    )
    parser.add_argument(
        '--prefix', help="what precedes the backbone's names in SRC (default: it is looked for)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)

    def run() -> None:
        report = convert_checkpoint(
            args.src,
            args.dst,
            args.trust,
            args.big_kernels,
            args.ghost_ratio,
            args.num_reps,
            args.prefix,
        )
        print(f'{report}\nwrote {args.dst}')

    return run_reporting_errors(run, also=(ValueError,))


if __name__ == '__main__':
    sys.exit(main())
