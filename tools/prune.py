#!/usr/bin/env python
"""Prune a trained checkpoint of any config: filters, channels, blocks, N of M, or single weights.

The file that is written has zeros and a mask beside each pruned weight. tools/train.py keeps them
at zero. docs/pruning.md says which granularity saves what where.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis import prune_model
    from mmsw.apis.cli import run_interruptible
    from mmsw.apis.config_options import ConfigOptions
    from mmsw.apis.prune.gradual_config import write_gradual_config
    from mmsw.apis.prune.plan import settings_of
    from mmsw.sparsity.pruning import BYS


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'config', metavar='CONFIG', help='config file that the checkpoint was trained with'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file to prune')
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write')
    parser.add_argument(
        '--granularity',
        required=True,
        metavar='WHAT',
        help='what is pruned in one piece: filter, channel, block, weight, or N:M, such as 2:4 (2 '
        'of 4 consecutive weights stay)',
    )
    parser.add_argument(
        '--sparsity',
        type=float,
        metavar='S',
        help='share to prune, from 0 to below 1; N:M has one by itself',
    )
    parser.add_argument(
        '--block',
        type=int,
        nargs=2,
        metavar=('R', 'C'),
        help='sides of a block: R filters by C consecutive weights of each',
    )
    layers = parser.add_mutually_exclusive_group()
    layers.add_argument(
        '--scope',
        metavar='REGEX',
        help='weights in whose name it is found, e.g. backbone (default: all but the first layer '
        'and those that predict)',
    )
    layers.add_argument(
        '--include-all', action='store_true', help='also prune the first and the last layers'
    )
    parser.add_argument(
        '--by',
        choices=BYS,
        default='magnitude',
        help='what goes first: the smallest, what changes the loss on training images least, or '
        'any (default: %(default)s)',
    )
    ranking = parser.add_mutually_exclusive_group()
    ranking.add_argument(
        '--per-layer',
        dest='per_layer',
        action='store_true',
        default=True,
        help='prune this share of every layer; this is the default',
    )
    ranking.add_argument(
        '--global',
        dest='per_layer',
        action='store_false',
        help='rank all layers together, and prune this share of all',
    )
    parser.add_argument(
        '--schedule',
        choices=('cubic',),
        help='prune step by step while the model trains: write no checkpoint, but a config for '
        'tools/train.py with GradualPruningHook to --out FILE.py',
    )
    parser.add_argument(
        '--snip-batches',
        type=int,
        default=1,
        metavar='N',
        help='training batches that --by snip looks at (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='of what is random (default: %(default)s)'
    )
    parser.add_argument(
        '--no-eval', action='store_true', help='do not measure on the validation data'
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size in pixels of the image that multiply-adds are counted for (default: as '
        'tools/get_flops.py)',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    parser.add_argument('--data-root', metavar='PATH', help='folder of the data set')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. train_dataloader.batch_size=4',
    )
    args = parser.parse_args(argv)
    if args.schedule is not None and (args.cfg_options or args.data_root or args.shape):
        parser.error(
            '--cfg-options, --data-root and --shape do not go with --schedule, which writes a '
            'config: give the first two to tools/train.py'
        )
    return args


_EPILOG = """\
Exit code: 0 done; 2 bad arguments or files, nothing was written; 130 interrupted.

Examples:
  python tools/prune.py CONFIG CHECKPOINT.pth --granularity filter --sparsity 0.3 --out pruned.pth
  python tools/prune.py CONFIG CHECKPOINT.pth --granularity 2:4 --scope backbone --out pruned.pth
  python tools/prune.py CONFIG CHECKPOINT.pth --granularity weight --sparsity 0.9 --out sparse.pth
  python tools/prune.py CONFIG CHECKPOINT.pth --granularity 2:4 --schedule cubic --out gradual.py
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)

    chosen = dict(
        granularity=args.granularity,
        sparsity=args.sparsity,
        block=args.block,
        scope=args.scope,
        by=args.by,
        per_layer=args.per_layer,
        include_all=args.include_all,
        seed=args.seed,
    )
    files = (args.config, args.checkpoint, args.out)
    common = dict(snip_batches=args.snip_batches, overwrite=args.overwrite)

    def run() -> None:
        if args.schedule is not None:
            print(write_gradual_config(*files, settings_of(**chosen), **common))
            return
        report = prune_model(
            *files,
            **chosen,
            **common,
            evaluate=not args.no_eval,
            shape=args.shape,
            cfg_options=args.cfg_options,
            data_root=args.data_root,
        )
        print(f'\n{report}')

    return run_interruptible(run, options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
