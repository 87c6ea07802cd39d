"""Check the data of a config before you train: sizes, labels, objects, broken files.

Prints figures and findings.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.config_options import ConfigOptions
    from mmsw.apis.dataset_report import (
        SAMPLE,
        Extent,
        check_outputs,
        report_dataset,
        write_report,
    )
    from mmsw.errors import UsageError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument('config', metavar='CONFIG', help='config file whose data are checked')
    parser.add_argument(
        '--data-root',
        metavar='PATH',
        help='folder of the data set, for every loader and evaluator (default: the one in the '
        'config)',
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        help='folder to write the report (text and JSON) and a picture of some labelled images to',
    )
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        '--sample',
        type=int,
        metavar='N',
        help='number of images to decode, drawn at random from each loader '
        f'(default: {SAMPLE}, fewer if that takes more than six seconds)',
    )
    extent.add_argument('--all', action='store_true', help='decode every image and label map')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='random seed of the sample (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. train_dataloader.dataset.img_suffix=.png',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 no errors, perhaps warnings; 1 something would break or mislead a training; 2 the
config or an option cannot be used.

Examples:
  python tools/check_dataset.py configs/demo/upernet_sw_mini_scenes.py
  python tools/check_dataset.py configs/upernet_sw_t_ade20k.py --out work_dirs/ade20k_check --all
"""


class Progress:
    """Tells on one line of a terminal how far the tool is; elsewhere it says nothing."""

    def __init__(self) -> None:
        self.shown, self.last = sys.stderr.isatty(), 0.0

    def __call__(self, loader: str, what: str, done: int, total: int) -> None:
        """Show how many of one loader are done."""
        if self.shown and (done == total or time.monotonic() - self.last > 0.1):
            self.last = time.monotonic()
            print(f'\r\033[K{loader}: {done}/{total} {what}', end='', file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self.shown:
            print('\r\033[K', end='', file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    if args.sample is not None and args.sample < 1:
        raise UsageError(f'--sample must be at least 1, got {args.sample}')
    if args.seed < 0:
        raise UsageError(f'--seed must be at least 0, got {args.seed}')
    if args.out is not None:
        check_outputs(args.out)
    progress = Progress()
    try:
        report = report_dataset(
            args.config,
            Extent(args.sample, args.all, args.seed),
            args.cfg_options,
            args.data_root,
            progress,
        )
    finally:
        progress.clear()
    print(report.text())
    if args.out is not None:
        print(f'wrote {", ".join(write_report(report, args.out))} to {args.out}')
    return 1 if report.failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    try:
        return run_reporting_errors(lambda: run(args), options=args.cfg_options)
    except KeyboardInterrupt:
        print('interrupted; nothing was written', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
