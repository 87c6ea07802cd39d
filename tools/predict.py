"""Predict images, folders, videos or a camera with a trained model, and write the results.

A model is a config with its checkpoint, or one file that tools/export.py wrote.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis import init_model, load_config, load_exported, register_toolbox
    from mmsw.apis.cli import run_interruptible
    from mmsw.apis.config_options import ConfigOptions
    from mmsw.apis.predict import SAVES, PredictOptions, PredictPlan, plan_prediction, run_plan
    from mmsw.deploy.export.formats import is_exported
    from mmsw.errors import UsageError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help='config file that the checkpoint was trained with; or an exported file (.onnx, .xml, '
        '.pt2), and no CHECKPOINT',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        metavar='CHECKPOINT',
        help='checkpoint file that tools/train.py saved',
    )
    parser.add_argument(
        'inputs',
        nargs='*',
        metavar='INPUT',
        help='image file, folder (its subfolders are included), quoted pattern such as '
        '"data/**/*.jpg", video file, or camera:0',
    )
    parser.add_argument(
        '--out',
        default='work_dirs/predict',
        metavar='DIR',
        help='folder for the outputs, which are named after the inputs (default: %(default)s)',
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
        '--overwrite', action='store_true', help='replace outputs that exist already'
    )
    parser.add_argument(
        '--device',
        metavar='DEVICE',
        help='device to run on, e.g. cuda:1 or cpu (default: a GPU if there is one, else cpu)',
    )
    parser.add_argument(
        '--deploy', action='store_true', help='fold the model first; this makes it faster'
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        metavar='N',
        help='largest number of images or windows per call of the model; successive ones of the '
        'same size are batched (default: %(default)s)',
    )
    parser.add_argument(
        '--window',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='cut large images into windows of this height and width in pixels, and merge the '
        'predictions (default: whole images)',
    )
    parser.add_argument(
        '--overlap',
        type=float,
        default=0.25,
        metavar='SHARE',
        help='share of a window that overlaps its neighbour, from 0 to 0.5 (default: %(default)s)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='draw and write objects with at least this score, from 0 to 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--opacity',
        type=float,
        default=0.5,
        metavar='SHARE',
        help='opacity of classes and masks in pictures, from 0 to 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--no-legend',
        action='store_true',
        help='draw no legend of classes on segmentation pictures',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. model.test_cfg.mode=whole',
    )
    args = parser.parse_intermixed_args(argv)  # what follows options may be an input
    if is_exported(args.config):
        first = [] if args.checkpoint is None else [args.checkpoint]
        args.checkpoint, args.inputs = None, [*first, *args.inputs]
    elif args.checkpoint is None:
        parser.error('the following arguments are required: CHECKPOINT, INPUT')
    if not args.inputs:
        parser.error('the following arguments are required: INPUT')
    return args


_EPILOG = """\
Exit code: 0 done; 1 an input was bad and skipped; 2 bad arguments, nothing was predicted; 130
interrupted.

Examples:
  python tools/predict.py CONFIG CHECKPOINT.pth street.jpg --out predicted
  python tools/predict.py CONFIG CHECKPOINT.pth photos drive.mp4 --batch-size 8 --deploy
  python tools/predict.py CONFIG CHECKPOINT.pth aerial.tif --window 1024 1024 --save label-map
  python tools/predict.py model.onnx photos --out predicted
"""


def check_of_exported(args: argparse.Namespace) -> None:
    """Refuse what makes no sense for an exported file.

    Raises:
        UsageError: If there is something.
    """
    why = {
        '--deploy': (args.deploy, 'it is folded already'),
        '--cfg-options': (args.cfg_options, 'it has no config: give them to tools/export.py'),
        f'--device {args.device}': (args.device not in (None, 'cpu'), 'it runs on the CPU'),
    }
    for option, (given, reason) in why.items():
        if given:
            raise UsageError(f'{option} cannot be used with {args.config}: {reason}')


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

    def plan_for(scope: str) -> PredictPlan:
        return plan_prediction(args.inputs, args.out, scope, options, overwrite=args.overwrite)

    def run() -> int:
        if args.checkpoint is None:
            check_of_exported(args)
            model = load_exported(args.config)
            plan = plan_for(model.metadata.scope)
        else:
            cfg = load_config(args.config, args.cfg_options)
            plan = plan_for(register_toolbox(cfg))
            model = init_model(cfg, args.checkpoint, args.device, deploy=args.deploy)
        return 1 if run_plan(model, plan).skipped else 0

    return run_interruptible(run, options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
