#!/usr/bin/env python
"""Convert a published shift-wise checkpoint into the form of mmsw, and report what it holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.convert import convert_checkpoint


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'src', metavar='SRC', help='checkpoint as the authors publish it, or one of mmsw'
    )
    parser.add_argument('dst', metavar='DST', help='file to write; replaced if it exists')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='unpickle everything that SRC asks for; this can run any code, so use it only for '
        'files whose origin you trust',
    )
    parser.add_argument(
        '--big-kernels',
        type=int,
        nargs=4,
        metavar='M',
        help='focus length of each of the four stages (default: as in the file, else 51 49 47 13)',
    )
    parser.add_argument(
        '--ghost-ratio',
        type=float,
        metavar='SHARE',
        help='share of the channels that bypass the operator (default: as in the file, else 0.23)',
    )
    parser.add_argument(
        '--num-reps',
        type=int,
        metavar='R',
        help='number of repetitions of the shifts (default: as in the file, else 4)',
    )
    parser.add_argument(
        '--prefix',
        metavar='TEXT',
        help="text before the backbone's parameter names in SRC (default: found automatically)",
    )
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 done; 2 nothing was written.

Examples:
  python tools/convert_checkpoint.py checkpoints/sw_t_v2_imagenet1k.pth checkpoints/sw_t_v2_mmsw.pth
  python tools/convert_checkpoint.py unknown.pth converted.pth --prefix teacher.backbone.
"""


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
