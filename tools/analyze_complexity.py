"""Recompute the complexity figures of the method: ratios, modules, and what the shifts use.

ratios   SLaK's pair of convolutions over the shift-wise module, in closed form
modules  the modules of a network beside those of a SLaK, stage by stage
cover    share of the small convolutions' outputs that the shifts read, by map size

docs/complexity.md explains each figure.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.analysis.complexity.modules import PUBLISHED_WIDTH, SLAK_SIZES
    from mmsw.analysis.complexity.tables import cover_table, module_table, ratio_table
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.complexity_analysis import (
        DEFAULT_SHAPE,
        RATIO_KERNELS,
        cover_of,
        module_comparison,
        ratios,
        write_comparison,
        write_cover,
        write_ratios,
    )
    from mmsw.apis.complexity_report import check_output
    from mmsw.apis.config_options import ConfigOptions


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    _add_ratios(commands.add_parser('ratios', help='the closed forms', description=_RATIOS))
    _add_modules(commands.add_parser('modules', help='beside a SLaK', description=_MODULES))
    _add_cover(commands.add_parser('cover', help='what the shifts read', description=_COVER))
    return parser.parse_args(argv)


def _add_ratios(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--kernels',
        nargs='+',
        type=int,
        default=list(RATIO_KERNELS),
        metavar='M',
        help='focus lengths (default: 51 49 47 45 13 5)',
    )
    parser.add_argument(
        '--small-kernel',
        type=int,
        default=5,
        metavar='N',
        help='side of the small kernels (default: %(default)s)',
    )
    parser.add_argument(
        '--map-size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='also print the ratio of the multiply-adds on a map of this size, border included',
    )
    _add_json(parser)


def _add_modules(parser: argparse.ArgumentParser) -> None:
    _add_network(parser)
    parser.add_argument(
        '--checkpoint',
        metavar='PATH',
        help='checkpoint that the backbone is filled from, for what is pruned',
    )
    parser.add_argument(
        '--slak',
        choices=SLAK_SIZES,
        default='tiny',
        help='size of the SLaK to compare with (default: %(default)s)',
    )
    parser.add_argument(
        '--width-factor',
        type=float,
        default=PUBLISHED_WIDTH,
        metavar='FACTOR',
        help='width of the SLaK, times the channels of ConvNeXt (default: %(default)s)',
    )
    _add_json(parser)


def _add_cover(parser: argparse.ArgumentParser) -> None:
    _add_network(parser)
    _add_json(parser)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config',
        nargs='?',
        metavar='CONFIG',
        help='config whose backbone is looked at (default: none, SW-T v1 as in the text)',
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        default=DEFAULT_SHAPE,
        metavar=('H', 'W'),
        help='height and width of the image in pixels (default: 224 224)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. model.backbone.num_reps=1',
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', metavar='PATH', help='also write every figure to this JSON file')


def run(args: argparse.Namespace) -> None:
    if args.json is not None:
        check_output(args.json)
    _RUN[args.command](args)


def _run_ratios(args: argparse.Namespace) -> None:
    rows = ratios(args.kernels, args.small_kernel, args.map_size)
    print(ratio_table(rows, args.map_size))
    if args.json is not None:
        write_ratios(rows, args.json)


def _run_modules(args: argparse.Namespace) -> None:
    comparison = module_comparison(
        args.config, args.checkpoint, args.cfg_options, args.shape, args.slak, args.width_factor
    )
    print(module_table(comparison))
    if args.json is not None:
        write_comparison(comparison, args.json)


def _run_cover(args: argparse.Namespace) -> None:
    name, stages = cover_of(args.config, args.cfg_options, args.shape)
    print(cover_table(stages, name, args.shape))
    if args.json is not None:
        write_cover(name, stages, args.shape, args.json)


_RUN = {'ratios': _run_ratios, 'modules': _run_modules, 'cover': _run_cover}

_RATIOS = "Parameters and multiply-adds of SLaK's pair over those of a shift-wise module."
_MODULES = 'Put the modules of a network beside those of a SLaK, stage by stage.'
_COVER = "Share of the small convolutions' outputs that the shifts read, stage by stage."
_EPILOG = """\
python tools/analyze_complexity.py COMMAND --help lists the options of a command.

Exit code: 0 done; 2 the config, the checkpoint or an option cannot be used.

Examples:
  python tools/analyze_complexity.py ratios
  python tools/analyze_complexity.py modules configs/upernet_sw_t_ade20k.py --shape 512 512
  python tools/analyze_complexity.py cover --shape 224 224
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    options = getattr(args, 'cfg_options', None)
    return run_reporting_errors(lambda: run(args), options=options)


if __name__ == '__main__':
    sys.exit(main())
