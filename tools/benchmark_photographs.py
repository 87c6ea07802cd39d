"""Train and compare networks on real photographs: CamVid road scenes and BCCD blood cells.

The shift-wise network, dense and pruned, stands beside SLaK, equ-SLaK, ResNet-18, ConvNeXt and MiT
of equal multiply-adds. If it was stopped, the same command continues.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

_clone.wait_passively()
with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_benchmark
    from mmsw.benchmarks.measure import usable_cpus
    from mmsw.benchmarks.photographs.benchmark import PARTS, benchmark_photographs


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder for the report, the pictures and all runs',
    )
    parser.add_argument(
        '--data',
        type=Path,
        default=Path('data'),
        metavar='DIR',
        help='folder that holds camvid and bccd, see docs/real_data.md (default: %(default)s)',
    )
    parser.add_argument(
        '--parts',
        default=','.join(PARTS),
        metavar='A,B,...',
        help='what to do. scratch: every network on CamVid, from random values; transfer: from '
        'CamVid to BCCD; long: at full size, one network, or seven with '
        '--full; times: time per image, folded; pictures '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(2, usable_cpus()),
        metavar='N',
        help='trainings at the same time, of one thread each (default: %(default)s)',
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        '--quick',
        dest='preset',
        action='store_const',
        const='quick',
        default='standard',
        help='a few iterations of everything: whether it runs, not what it is worth',
    )
    length.add_argument(
        '--full',
        dest='preset',
        action='store_const',
        const='full',
        help='for a GPU: images at their own size, 24000 iterations and five seeds; long: seven '
        'networks, 2500 iterations',
    )
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE',
        help='also put the tables into this Markdown page, between its lines for them, and the '
        'figures and pictures beside it',
    )
    parser.add_argument(
        '--readme',
        type=Path,
        metavar='FILE',
        help='also put a table of some of the networks into this file, between its lines for it',
    )
    parser.add_argument('--dry-run', action='store_true', help='print the planned runs and stop')
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 done; 1 a run failed (see the report); 2 bad arguments.

Examples:
  python tools/benchmark_photographs.py --out work_dirs/photographs --dry-run
  python tools/benchmark_photographs.py --out work_dirs/photographs
  python tools/benchmark_photographs.py --out work_dirs/full_size --full --parts long --jobs 7
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)

    def carry_out() -> int:
        failures = benchmark_photographs(
            args.out,
            args.data,
            args.preset,
            tuple(args.parts.split(',')),
            args.jobs,
            args.page,
            args.readme,
            args.dry_run,
        )
        return int(bool(failures))

    return run_benchmark(carry_out, args.out)


if __name__ == '__main__':
    sys.exit(main())
