#!/usr/bin/env python
"""Write the page of the model zoo from configs/metafile.yml and configs/published.yml."""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.model_zoo import make_model_zoo


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out',
        default='docs/model_zoo.md',
        metavar='PATH',
        help='page to write, replaced if it exists (default: %(default)s)',
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; exit code 1 if the page differs'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: make_model_zoo(args.out, args.check))


if __name__ == '__main__':
    sys.exit(main())
