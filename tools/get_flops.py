"""Count parameters and multiply-adds of the model of a config, without weights or data.

dense      multiply-adds if nothing were pruned
used       what is left of them after pruning
naive      dense, but every small convolution computed by itself, not as one cross kernel
release's  what the tool behind the authors' printed "GFLOPs" counts

The rules are in docs/complexity.md.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.complexity_report import (
        check_output,
        complexity_table,
        count_complexity,
        write_json,
    )
    from mmsw.apis.config_options import ConfigOptions


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    numbers = _numbers_of_shape(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file, e.g. configs/upernet_sw_t_ade20k.py')
    parser.add_argument(
        '--shape',
        nargs=numbers,
        type=int,
        metavar=('C', 'H', 'W')[-numbers:],
        help='of the image, in pixels (512 2048 for segmentation, 1280 800 for detection); C H W '
        'for other channels than the backbone takes',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='PATH',
        help='what is pruned: a file of tools/train.py, or a pretrained backbone',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='changes to the config, e.g. model.backbone.num_paths=1',
    )
    parser.add_argument(
        '--proposals',
        type=int,
        default=1000,
        metavar='N',
        help='boxes for the RoI heads of a two-stage detector (%(default)s)',
    )
    parser.add_argument(
        '--mask-proposals',
        type=int,
        default=100,
        metavar='N',
        help='boxes among them for its mask heads (%(default)s)',
    )
    parser.add_argument('--deploy', action='store_true', help='count the folded form')
    parser.add_argument('--per-module', action='store_true', help='a row for every module')
    parser.add_argument('--json', metavar='PATH', help='write every count here as well')
    return parser.parse_args(argv)


def _numbers_of_shape(argv: Sequence[str]) -> int:
    """3 if three numbers follow ``--shape``, else 2: the config may follow as well."""
    place = argv.index('--shape') + 1 if '--shape' in argv else len(argv)
    following = argv[place : place + 3]
    return 3 if len(following) == 3 and all(item.isdecimal() for item in following) else 2


def run(args: argparse.Namespace) -> None:
    if args.json is not None:
        check_output(args.json)
    result = count_complexity(
        args.config,
        args.shape,
        args.checkpoint,
        args.cfg_options,
        proposals=args.proposals,
        mask_proposals=args.mask_proposals,
        deploy=args.deploy,
    )
    print(complexity_table(result, args.per_module))
    if args.json is not None:
        write_json(result, args.json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: run(args), options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
