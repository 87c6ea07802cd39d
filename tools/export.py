#!/usr/bin/env python
"""Export a trained model to a file for onnxruntime, OpenVINO or torch.export, and compare both.

The model is folded first. The file runs without config and checkpoint: tools/predict.py takes it.
A file whose results are not those of the model is not left.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_interruptible
    from mmsw.apis.config_options import ConfigOptions
    from mmsw.apis.export import export_model
    from mmsw.deploy.export.formats import FORMATS, format_of
    from mmsw.deploy.export.precisions import PRECISIONS


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
    parser.add_argument(
        '--out',
        required=True,
        metavar='FILE',
        help='file to write: .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch)',
    )
    parser.add_argument(
        '--format', choices=tuple(FORMATS), help='format of the file (default: by its ending)'
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='height and width in pixels of a file for one size; images are shrunk into it, and '
        'what is free gets a border',
    )
    sizes.add_argument(
        '--dynamic', action='store_true', help='take images of any size; this is the default'
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='float32',
        help='numbers of the weights and the arithmetic (default: %(default)s)',
    )
    comparison = parser.add_mutually_exclusive_group()
    comparison.add_argument(
        '--verify',
        metavar='DIR',
        help='folder of images to compare results on (default: test images of the config, or '
        'random ones where those are not on this machine)',
    )
    comparison.add_argument(
        '--no-verify', action='store_true', help='write the file without comparing it'
    )
    parser.add_argument(
        '--calibrate',
        metavar='DIR',
        help='folder of images that int8 takes the ranges of values from (default: training images '
        'of the config)',
    )
    parser.add_argument(
        '--keep-float',
        metavar='REGEX',
        help='weights in whose name it is found stay float32 in int8, beside those that do anyway, '
        'e.g. decode_head',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile a .pt2 file to machine code for processors like this one (AOTInductor); '
        'this takes minutes and a C++ compiler',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a file that exists already'
    )
    parser.add_argument(
        '--threads',
        type=int,
        metavar='N',
        help='number of CPU threads of the comparison (default: the number that torch uses)',
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
Exit code: 0 done; 1 the results of the file are not those of the model, and it was not left; 2 bad
arguments, nothing was written; 130 interrupted.

Examples:
  python tools/export.py CONFIG CHECKPOINT.pth --out model.onnx
  python tools/export.py CONFIG CHECKPOINT.pth --out model.xml --size 512 512 --verify photos
  python tools/export.py CONFIG CHECKPOINT.pth --out model.onnx --precision int8 --calibrate photos
  python tools/export.py CONFIG CHECKPOINT.pth --out model.pt2 --compile
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)

    def run() -> int:
        report = export_model(
            args.config,
            args.checkpoint,
            args.out,
            args.format or format_of(args.out),
            size=args.size,
            precision=args.precision,
            verify=args.verify or not args.no_verify,
            calibrate=args.calibrate,
            keep_float=args.keep_float,
            compile=args.compile,
            cfg_options=args.cfg_options,
            overwrite=args.overwrite,
            threads=args.threads,
        )
        print(report)
        return 0 if report.passed else 1

    return run_interruptible(run, options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
