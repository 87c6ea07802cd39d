#!/usr/bin/env python
"""Measure again what the documentation quotes, and put tables, pictures and figures into its pages.

The jobs run one after the other. If it was stopped, the same command continues: a job that is done
is not run again. Each page has its figures beside it as JSON, with machine, versions and commit.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_interruptible
    from mmsw.benchmarks.figures.blocks import problems_of
    from mmsw.benchmarks.figures.listing import listing
    from mmsw.benchmarks.figures.run import Places, chosen_jobs, make_figures
    from mmsw.benchmarks.locks import exclusive

_ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='run the smallest form of each job, in minutes, into a copy of the pages below --out: '
        'it shows that the commands work, its figures mean nothing',
    )
    parser.add_argument(
        '--only', nargs='+', metavar='NAME', help='run these jobs only (default: all jobs)'
    )
    parser.add_argument(
        '--again',
        nargs='+',
        default=[],
        metavar='NAME',
        help='run these jobs even if they are done',
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--list',
        action='store_true',
        help='run nothing; show the state of each job, how long it took, which commit the figures '
        'of the pages are of, and whether the code has changed since',
    )
    what.add_argument(
        '--check',
        action='store_true',
        help='run nothing; compare the tables of the pages with the figures beside them',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/figures'),
        metavar='DIR',
        help='folder of all jobs (default: %(default)s)',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 done; 1 a job failed, or with --check a page differs; 2 bad arguments; 130 interrupted.

Examples:
  python tools/make_figures.py --list
  python tools/make_figures.py --quick
  python tools/make_figures.py --only operators networks
"""


def run(args: argparse.Namespace) -> int:
    places = Places.of(_ROOT, args.out, args.quick)
    if args.check:
        found = [line for page in sorted(places.docs.glob('*.md')) for line in problems_of(page)]
        print('\n'.join(found) or 'every table is that of the figures beside its page')
        return int(bool(found))
    chosen_jobs(args.again)
    jobs = chosen_jobs(args.only)
    if args.list:
        print(listing(jobs, places))
        return 0
    with exclusive(places.out):
        failed = make_figures(jobs, places, args.again, lambda line: print(line, flush=True))
    if failed:
        print(f'failed: {", ".join(failed)}', file=sys.stderr)
    return int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_interruptible(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
