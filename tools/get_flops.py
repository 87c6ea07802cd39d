"""Count parameters and multiply-adds of the model of a config, without weights or data.

dense      multiply-adds if nothing were pruned
used       multiply-adds that are left after pruning
naive      like dense, but every small convolution is computed by itself, not as one cross kernel
release's  the count of the tool behind the "GFLOPs" that the authors published

With --checkpoint, a second table says what the zeros of any network could save: with dense kernels
once whole filters are cut out, with kernels that skip blocks, with hardware for 2:4 sparsity, and
if every single zero were skipped.

docs/complexity.md has the rules.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.analysis.complexity.kernel_counts import DEFAULT_BLOCK
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
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'config', metavar='CONFIG', help='config file, e.g. configs/upernet_sw_t_ade20k.py'
    )
    parser.add_argument(
        '--shape',
        nargs=numbers,
        type=int,
        metavar=('C', 'H', 'W')[-numbers:],
        help='height and width of the image in pixels (default: 512 2048 for segmentation, 1280 '
        '800 for detection); three numbers are channels, height and width (default for channels: '
        'those of the backbone)',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='PATH',
        help='count what this checkpoint prunes: a file of the whole model or of its backbone',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. model.backbone.num_paths=1',
    )
    parser.add_argument(
        '--proposals',
        type=int,
        default=1000,
        metavar='N',
        help='boxes for the RoI heads of a two-stage detector (default: %(default)s)',
    )
    parser.add_argument(
        '--mask-proposals',
        type=int,
        default=100,
        metavar='N',
        help='boxes for the mask heads of a two-stage detector (default: %(default)s)',
    )
    parser.add_argument(
        '--block',
        nargs=2,
        type=int,
        default=DEFAULT_BLOCK,
        metavar=('F', 'C'),
        help='filters and inputs of the blocks of zeros that a kernel skips, with --checkpoint '
        f'(default: {" ".join(map(str, DEFAULT_BLOCK))})',
    )
    parser.add_argument('--deploy', action='store_true', help='count the folded form of the model')
    parser.add_argument('--per-module', action='store_true', help='print a row for every module')
    parser.add_argument('--json', metavar='PATH', help='also write every count to this JSON file')
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
        block=tuple(args.block),
    )
    print(complexity_table(result, args.per_module))
    if args.json is not None:
        write_json(result, args.json)


_EPILOG = """\
Exit code: 0 done; 2 the config, the checkpoint or an option cannot be used.

Examples:
  python tools/get_flops.py configs/upernet_sw_t_ade20k.py
  python tools/get_flops.py configs/demo/upernet_sw_mini_scenes.py --shape 160 160 --deploy
  python tools/get_flops.py mask_rcnn_r50.py --checkpoint pruned_r50.pth --block 1 4
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: run(args), options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
