"""Draw the predictions of a trained segmentor or detector on images.

tools/predict.py does the same for folders and videos, and writes label maps, JSON and CSV.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis import init_model
    from mmsw.apis.annotate import annotate_images, check_annotating
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.config_options import ConfigOptions


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'config', metavar='CONFIG', help='config file that the checkpoint was trained with'
    )
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='checkpoint file that tools/train.py saved'
    )
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image file')
    parser.add_argument(
        '--out',
        default='work_dirs/demo_image',
        metavar='PATH',
        help='folder for the pictures; for one image also a .png or .jpg file (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--device',
        metavar='DEVICE',
        help='device to run on, e.g. cuda:1 or cpu (default: a GPU if there is one, else cpu)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='draw objects with at least this score, from 0 to 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--opacity',
        type=float,
        default=0.5,
        metavar='SHARE',
        help='opacity of classes and masks, from 0 to 1 (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. model.test_cfg.mode=whole',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/demo_image.py configs/demo/upernet_sw_mini_scenes.py CHECKPOINT.pth street.jpg
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    drawing = dict(out=args.out, score_thr=args.score_thr, opacity=args.opacity)

    def run() -> None:
        check_annotating(args.images, **drawing)  # before the model is built
        model = init_model(args.config, args.checkpoint, args.device, args.cfg_options)
        annotate_images(model, args.images, **drawing)

    return run_reporting_errors(run, options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
