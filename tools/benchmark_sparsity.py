"""Train dense, static sparse and dynamic sparse networks under one budget, and compare them.

Reports accuracy, time and multiply-adds. By default it uses the demo scenes and runs on a CPU. If
it was stopped, the same command continues.
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
    from mmsw.sparsity.dynamic_settings import PRUNES, REDISTRIBUTIONS

_CONFIG = Path(__file__).resolve().parents[1] / 'configs/demo/pretrain_sw_mini_scenes.py'

_RULES = (
    ('prune', PRUNES, 'which filters go'),
    (
        'redistribution',
        [name for name in REDISTRIBUTIONS if name],
        'what filters move between layers by',
    ),
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    add_study_arguments(parser)
    parser.add_argument(
        '--methods',
        default=','.join(METHODS),
        metavar='A,B,...',
        help='methods to compare, with commas between them (default: %(default)s)',
    )
    parser.add_argument(
        '--sparsity',
        default='0.3,0.5,0.7,0.9',
        metavar='A,B,...',
        help='shares of the filters to prune, with commas between them (default: %(default)s)',
    )
    parser.add_argument(
        '--max-iters',
        type=int,
        default=252,
        metavar='N',
        help='iterations of every run (default: %(default)s)',
    )
    parser.add_argument(
        '--interval',
        type=int,
        metavar='N',
        help='iterations between two updates of the masks (default: chosen so that a run has '
        f'{UPDATES} updates)',
    )
    for rule, values, what in _RULES:
        parser.add_argument(
            f'--{rule}',
            choices=values,
            metavar='RULE',
            help=f'{what}: {" or ".join(values)} (default: that of DynamicSparsityHook); '
            'another rule needs another --out folder',
        )
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(2, usable_cpus()),
        metavar='N',
        help='runs at the same time, one thread each; no more than there are idle CPU cores '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--config',
        type=Path,
        default=_CONFIG,
        metavar='PATH',
        help=f'config to train (default: configs/demo/{_CONFIG.name})',
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='DIR',
        help='for a demo config: folder made by tools/make_demo_data.py (default: scenes of its '
        'own in the --out folder, with more held-out scenes; made if absent); for other configs: '
        'data root (default: the one in the config)',
    )
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE',
        help='when everything is measured, also put the tables into this Markdown page, between '
        'its lines for them, and the figures beside it',
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
        page=args.page,
        rules={rule: value for rule, *_ in _RULES if (value := vars(args)[rule]) is not None},
    )
    return SparsityStudy(args.config, args.data, args.cfg_options, settings)


_EPILOG = """\
Exit code: 0 done; 1 a run failed (see the report); 2 bad arguments.

Examples:
  python tools/benchmark_sparsity.py --out work_dirs/sparse_training --dry-run
  python tools/benchmark_sparsity.py --out work_dirs/short --methods dense,filter --seeds 1
  python tools/benchmark_sparsity.py --out work_dirs/moved --redistribution momentum
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return carry_out(lambda: _study(args), args)


if __name__ == '__main__':
    sys.exit(main())
