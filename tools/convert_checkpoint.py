#!/usr/bin/env python
"""Convert a published shift-wise checkpoint into this project's form and report what it holds."""

from __future__ import annotations

import argparse
import sys

import _clone  # noqa: F401  (before mmsw)

from mmsw.apis.convert import convert_checkpoint
from mmsw.checkpoint import CheckpointError


def parse_args() -> argparse.Namespace:
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
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        report = convert_checkpoint(
            args.src,
            args.dst,
            args.trust,
            args.big_kernels,
            args.ghost_ratio,
            args.num_reps,
            args.prefix,
        )
    except (CheckpointError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{report}\nwrote {args.dst}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
