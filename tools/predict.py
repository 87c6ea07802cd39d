"""Predict images, folders of them, videos or a camera with a trained model, and write the results.

Runs from a clone as it is, installed or not. The exit code is 1 if an input was bad and left out, 2
if nothing was done since something asked for is wrong, 130 after Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis import init_model, load_config, register_toolbox
    from mmsw.apis.cli import run_interruptible
    from mmsw.apis.config_options import ConfigOptions
    from mmsw.apis.predict import SAVES, PredictOptions, plan_prediction, run_plan


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint file that tools/train.py saved')
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='image files, folders (with the folders in them), quoted patterns such as '
        '"data/**/*.jpg", video files, or camera:0',
    )
    parser.add_argument(
        '--out',
        default='work_dirs/predict',
        metavar='DIR',
        help='folder for outputs; they are named as the inputs are (default: %(default)s)',
    )
    parser.add_argument(
        '--save',
        nargs='+',
        choices=SAVES,
        default=['overlay'],
        help='what to write: overlay (pictures and videos), label-map (segmentors: PNG files of '
        'class indices), json and csv (detectors: boxes, scores, classes and masks) '
        '(default: overlay)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace outputs that are there already'
    )
    parser.add_argument('--device', help='e.g. cuda:1 or cpu (default: a GPU if there is one)')
    parser.add_argument(
        '--deploy', action='store_true', help='fold the model first, which makes it faster'
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        metavar='N',
        help='most images or windows that the model gets at once; neighbours of one size go '
        'together (default: %(default)s)',
    )
    parser.add_argument(
        '--window',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='cut large images into windows of this height and width, and blend or merge what the '
        'model sees in them (default: whole images)',
    )
    parser.add_argument(
        '--overlap',
        type=float,
        default=0.25,
        metavar='SHARE',
        help='share of a window that it has in common with its neighbour, 0 to 0.5 '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='least score of objects that are drawn and written (default: %(default)s)',
    )
    parser.add_argument(
        '--opacity',
        type=float,
        default=0.5,
        help='opacity of classes and masks in pictures, 0 to 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--no-legend', action='store_true', help='write no names of classes on segmented pictures'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='changes to the config, e.g. model.test_cfg.mode=whole',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    options = PredictOptions(
        tuple(dict.fromkeys(args.save)),
        args.batch_size,
        args.score_thr,
        args.opacity,
        not args.no_legend,
        tuple(args.window) if args.window else None,
        args.overlap,
    )

    def run() -> int:
        cfg = load_config(args.config, args.cfg_options)
        scope = register_toolbox(cfg)
        plan = plan_prediction(args.inputs, args.out, scope, options, overwrite=args.overwrite)
        model = init_model(cfg, args.checkpoint, args.device, deploy=args.deploy)
        return 1 if run_plan(model, plan).skipped else 0

    return run_interruptible(run, options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
