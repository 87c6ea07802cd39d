"""Pretrain the backbone of the demo on cut-out objects, sparse from the first step, and save it.

The recipe is configs/demo/pretrain_sw_mini_scenes.py. tools/train.py runs it unchanged.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

_clone.wait_passively()
with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.demo.pretraining import make_demo_checkpoint

_CONFIG = Path(__file__).resolve().parents[1] / 'configs/demo/upernet_sw_mini_scenes.py'


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        '--data',
        metavar='DIR',
        default='data/demo',
        help='folder that tools/make_demo_data.py made (default: %(default)s)',
    )
    parser.add_argument('--out', metavar='PATH', required=True, help='checkpoint file to write')
    parser.add_argument(
        '--config',
        metavar='PATH',
        default=_CONFIG,
        help=f'config whose backbone is trained (default: configs/demo/{_CONFIG.name})',
    )
    parser.add_argument(
        '--sparsity',
        type=float,
        default=0.4,
        metavar='SHARE',
        help='share of the filters to prune, from 0 (dense) to below 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='random seed (default: %(default)s)'
    )
    parser.add_argument(
        '--epochs',
        type=int,
        default=8,
        metavar='N',
        help='passes over the training objects (default: %(default)s)',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/make_demo_checkpoint.py --out work_dirs/demo/pretrained_sparse.pth
  python tools/make_demo_checkpoint.py --out work_dirs/demo/dense.pth --sparsity 0
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)

    def run() -> None:
        made = make_demo_checkpoint(**vars(args), progress=lambda line: print(line, flush=True))
        print(f'held-out accuracy: {made.accuracy:.1%}')
        print(f'filters kept, read back from {made.path}:\n{made.sparsity}')

    return run_reporting_errors(run)


if __name__ == '__main__':
    sys.exit(main())
