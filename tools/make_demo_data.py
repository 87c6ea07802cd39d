"""Make the demo data set from installed packages, with labels in the layouts of ADE20K and COCO."""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.demo import make_demo_data


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument('out_dir', metavar='OUT_DIR', help='folder to create')
    parser.add_argument(
        '--num-train',
        type=int,
        default=600,
        metavar='N',
        help='number of training scenes (default: %(default)s)',
    )
    parser.add_argument(
        '--num-val',
        type=int,
        default=60,
        metavar='N',
        help='number of validation scenes (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=160,
        metavar='PIXELS',
        help='side of a scene in pixels (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='random seed (default: %(default)s)'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace demo data that were made with other settings'
    )
    return parser.parse_args(argv)


def show_progress(split: str, done: int, total: int) -> None:
    """Report on one line of a terminal, or once in 100 scenes elsewhere."""
    if sys.stderr.isatty():
        print(
            f'\r{split}: {done}/{total} scenes', end='\n' if done == total else '', file=sys.stderr
        )
    elif done % 100 == 0 or done == total:
        print(f'{split}: {done}/{total} scenes', file=sys.stderr, flush=True)


_EPILOG = """\
Exit code: 0 done; 2 nothing was written; 130 interrupted.

Examples:
  python tools/make_demo_data.py data/demo
  python tools/make_demo_data.py data/tiny --num-train 8 --num-val 4 --size 96
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = vars(parse_args(argv))

    def run() -> None:
        data = make_demo_data(**options, progress=show_progress)
        if data.reused:
            print(f'{data.path} is already there with these settings; left as it is')
        for split, counts in data.counts.items():
            print(f'{split}: {counts["images"]} images, {counts["objects"]} objects')
        if not data.reused:
            print(f'written to {data.path}')

    try:
        return run_reporting_errors(run, also=(ValueError, ImportError, OSError))
    except KeyboardInterrupt:
        print('\ninterrupted; nothing was written', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
