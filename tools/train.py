"""Train what a config describes: segmentor, detector or classifier, on one CPU, one GPU or many.

Runs from a clone as it is, installed or not. Several processes: tools/dist_train.sh.
"""

import argparse
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis import build_runner
    from mmsw.apis.cli import add_common_arguments, leave, run_reporting_errors, set_local_rank


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file, e.g. configs/upernet_sw_t_ade20k.py')
    add_common_arguments(parser)
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        '--pretrained',
        metavar='PATH',
        help='checkpoint that the backbone starts from, instead of the one the config names',
    )
    start.add_argument('--from-scratch', action='store_true', help='start without any checkpoint')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on from PATH, or from the latest checkpoint in the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the total batch size',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    set_local_rank(args)
    return run_reporting_errors(
        lambda: build_runner(
            args.config,
            work_dir=args.work_dir,
            resume=args.resume or False,
            amp=args.amp,
            launcher=args.launcher,
            cfg_options=args.cfg_options,
            data_root=args.data_root,
            pretrained=False if args.from_scratch else args.pretrained,
            auto_scale_lr=args.auto_scale_lr,
        ).train(),
        options=args.cfg_options,
    )


if __name__ == '__main__':
    leave(main())
