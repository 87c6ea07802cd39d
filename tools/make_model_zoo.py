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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--out',
        default='docs/model_zoo.md',
        metavar='PATH',
        help='page to write; replaced if it exists (default: %(default)s)',
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; compare the page with its sources'
    )
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 done, or the page is up to date; 1 with --check, the page differs; 2 bad arguments.

Examples:
  python tools/make_model_zoo.py
  python tools/make_model_zoo.py --check
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: make_model_zoo(args.out, args.check))


if __name__ == '__main__':
    sys.exit(main())
