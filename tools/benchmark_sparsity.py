"""Train dense, static and dynamic sparse networks under one budget; tell accuracy, time and work.

By default on the demo scenes, on a CPU. Started again it goes on where it was stopped. Runs from a
clone as it is, installed or not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.benchmarks.command_line import add_study_arguments, carry_out
    from mmsw.benchmarks.measure import usable_cpus
    from mmsw.benchmarks.sparse_training.plan import METHODS, UPDATES, SparsitySettings
    from mmsw.benchmarks.sparse_training.study import SparsityStudy
    from mmsw.errors import UsageError

_CONFIG = Path(__file__).resolve().parents[1] / 'configs/demo/pretrain_sw_mini_scenes.py'


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study_arguments(parser)
    parser.add_argument(
        '--methods',
        default=','.join(METHODS),
        metavar='A,B,...',
        help='some of %(default)s (default: all)',
    )
    parser.add_argument(
        '--sparsity',
        default='0.3,0.5,0.7,0.9',
        metavar='A,B,...',
        help='shares of the small kernels to prune (%(default)s)',
    )
    parser.add_argument(
        '--max-iters', type=int, default=252, metavar='N', help='of every run (%(default)s)'
    )
    parser.add_argument(
        '--interval',
        type=int,
        metavar='N',
        help=f'iterations between two updates of the masks (default: {UPDATES} updates in a run)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(2, usable_cpus()),
        help='runs side by side, of one thread each (%(default)s); no more than idle processors',
    )
    parser.add_argument(
        '--config',
        type=Path,
        default=_CONFIG,
        metavar='PATH',
        help='what is trained (default: configs/demo/pretrain_sw_mini_scenes.py)',
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='DIR',
        help='of make_demo_data.py for the demo config (default: scenes in the --out folder with '
        'more held-out ones; made if absent), the data root for others (default: as the config '
        'says)',
    )
    return parser.parse_args(argv)


def _study(args: argparse.Namespace) -> SparsityStudy:
    try:
        sparsities = tuple(float(text) for text in args.sparsity.split(','))
    except ValueError:
        raise UsageError(
            f'--sparsity must be numbers with commas between them, got {args.sparsity!r}'
        ) from None
    if args.interval is not None and args.interval < 1:
        raise UsageError(f'interval must be at least 1, got {args.interval}')
    settings = SparsitySettings(
        out=args.out,
        methods=tuple(args.methods.split(',')),
        sparsities=sparsities,
        seeds=args.seeds,
        max_iters=args.max_iters,
        interval=args.interval,
        jobs=args.jobs,
    )
    return SparsityStudy(args.config, args.data, args.cfg_options, settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return carry_out(lambda: _study(args), args)


if __name__ == '__main__':
    sys.exit(main())
