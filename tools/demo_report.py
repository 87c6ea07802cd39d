"""Report on a finished demo: scores and density before and after, and a picture of scenes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.benchmarks.demo_page import check_demo_page, update_page
    from mmsw.demo.report import PICTURES, RUN_FOLDERS, demo_report


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'work_dir',
        metavar='WORK_DIR',
        help='folder of the demo, with the run of tools/train.py in its folder '
        f'{" or ".join(RUN_FOLDERS.values())}; the tool writes '
        f'{" or ".join(PICTURES.values())} into it',
    )
    parser.add_argument(
        '--task',
        choices=sorted(RUN_FOLDERS),
        default='seg',
        help=', '.join(f'{task}: the run in {name}' for task, name in RUN_FOLDERS.items())
        + ' (default: %(default)s)',
    )
    parser.add_argument(
        '--beside',
        metavar='RUN_DIR',
        nargs='+',
        default=[],
        help='folders of other finished runs on the same data; each is scored and gets a row',
    )
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE',
        help='also put the scores into this Markdown page, between its lines for them, and the '
        'figures beside it',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/demo_report.py work_dirs/demo
  python tools/demo_report.py work_dirs/demo --task det
"""


def report(args: argparse.Namespace) -> None:
    if args.page is not None:
        check_demo_page(args.page, args.task)
    found = demo_report(args.work_dir, task=args.task, beside=args.beside)
    print(found)
    if args.page is not None:
        update_page(found, args.task, args.page)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: report(args))


if __name__ == '__main__':
    sys.exit(main())
