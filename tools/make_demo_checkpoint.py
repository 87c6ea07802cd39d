"""Pretrain the demo's backbone on cut-out objects, sparse all along, and write the checkpoint.

configs/demo/pretrain_sw_mini_scenes.py is the recipe; tools/train.py runs it as it stands.

Runs from a clone as it is, installed or not.
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
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--data',
        metavar='DIR',
        default='data/demo',
        help='folder that make_demo_data.py made (%(default)s)',
    )
    parser.add_argument('--out', metavar='PATH', required=True, help='checkpoint file to write')
    parser.add_argument(
        '--config',
        metavar='PATH',
        default=_CONFIG,
        help='config whose backbone is trained (configs/demo/upernet_sw_mini_scenes.py)',
    )
    parser.add_argument(
        '--sparsity',
        type=float,
        default=0.4,
        help='share of the small filters to prune, in [0, 1); 0 trains dense (%(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed (%(default)s)')
    parser.add_argument(
        '--epochs',
        type=int,
        default=8,
        help='passes over the objects (%(default)s)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)

    def run() -> None:
        made = make_demo_checkpoint(**vars(args), progress=lambda line: print(line, flush=True))
        print(f'told right at the end: {made.accuracy:.1%} of the held-out objects')
        print(f'small filters kept, read back from {made.path}:\n{made.sparsity}')

    return run_reporting_errors(run)


if __name__ == '__main__':
    sys.exit(main())
