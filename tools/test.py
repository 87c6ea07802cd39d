"""Test a checkpoint that tools/train.py saved: segmentor, detector or classifier.

To test with several processes, use tools/dist_test.sh.
"""

import argparse
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis import build_test_runner
    from mmsw.apis.cli import (
        add_common_arguments,
        add_monitoring_arguments,
        leave,
        run_reporting_errors,
        set_local_rank,
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'config', metavar='CONFIG', help='config file that the checkpoint was trained with'
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file to test')
    add_common_arguments(parser)
    parser.add_argument(
        '--tta',
        action='store_true',
        help='use test-time augmentation: average over the scales and flips of tta_pipeline in the '
        'config',
    )
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='test the folded form of the model, which is faster; scores change by rounding only',
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='save a picture of every image to this folder, truth beside prediction (with several '
        'processes: the images of the first process)',
    )
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='save the predictions: folder for label maps (segmentation) or .pkl file (detection)',
    )
    parser.add_argument(
        '--no-truth',
        action='store_true',
        help='predict images that have no annotations, and score nothing (needs --out or '
        '--show-dir)',
    )
    add_monitoring_arguments(parser)
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/test.py configs/upernet_sw_t_ade20k.py CHECKPOINT.pth --show-dir pictures
  python tools/test.py configs/upernet_sw_t_ade20k_ms.py CHECKPOINT.pth
  python tools/test.py configs/upernet_sw_t_ade20k.py CHECKPOINT.pth --no-truth --out maps
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    set_local_rank(args)
    return run_reporting_errors(
        lambda: build_test_runner(
            args.config,
            args.checkpoint,
            work_dir=args.work_dir,
            launcher=args.launcher,
            cfg_options=args.cfg_options,
            data_root=args.data_root,
            tta=args.tta,
            show_dir=args.show_dir,
            out=args.out,
            no_truth=args.no_truth,
            deploy=args.deploy,
            tensorboard=args.tensorboard,
            wandb=args.wandb,
        ).test(),
        options=args.cfg_options,
    )


if __name__ == '__main__':
    leave(main())
