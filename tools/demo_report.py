"""Report on a finished demo: scores and density before and after, and a picture of scenes."""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.demo.report import PICTURE, RUN_FOLDER, demo_report


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'work_dir',
        metavar='WORK_DIR',
        help=f'folder of the demo, with the run of tools/train.py in its folder {RUN_FOLDER}; the '
        f'tool writes {PICTURE} into it',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/demo_report.py work_dirs/demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: print(demo_report(args.work_dir)))


if __name__ == '__main__':
    sys.exit(main())
