"""Show what is pruned in a checkpoint: per stage, per layer and by distance, and what it saves.

Reads files as the authors publish them, and this project's own: converted, pretrained, or saved by
tools/train.py. Each figure is explained in docs/sparsity_analysis.md.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.analysis.sparsity.table import sparsity_table
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.complexity_report import check_output
    from mmsw.apis.sparsity_analysis import (
        DEFAULT_SHAPE,
        JSON,
        PICTURE,
        TEXT,
        analyze_sparsity,
        check_folder,
        write_json,
        write_report,
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='file to look at')
    parser.add_argument(
        '--config',
        metavar='CONFIG',
        help='config whose backbone is filled from it (default: the tensors tell the network)',
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        help=f'folder for {PICTURE} (and .svg), {JSON} and {TEXT} (the text printed)',
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        default=DEFAULT_SHAPE,
        metavar=('H', 'W'),
        help='of the image in pixels, for the multiply-adds (512 512, the crop for ADE20K)',
    )
    parser.add_argument('--json', metavar='PATH', help='write every figure here as well')
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    if args.out is not None:
        check_folder(args.out)
    if args.json is not None:
        check_output(args.json)
    analysis = analyze_sparsity(args.checkpoint, args.config, args.shape)
    text = sparsity_table(analysis)
    if args.out is not None:
        write_report(analysis, text, args.out)
    if args.json is not None:
        write_json(analysis, args.json)
    print(text)
    if args.out is not None:
        print(f'\nwrote {PICTURE} (and .svg), {JSON} and {TEXT} to {args.out}')


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
