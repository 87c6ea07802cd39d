"""Draw the effective receptive fields of backbones: what of an image the middle of a map sees.

Takes any config of mmsw, mmsegmentation, mmdetection or mmpretrain, builds its backbone alone, and
needs no data. Several configs stand side by side, on one scale. docs/receptive_field.md explains
what is measured.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_interruptible
    from mmsw.apis.complexity_report import check_output
    from mmsw.apis.config_options import ConfigOptions
    from mmsw.apis.receptive_field import (
        DEFAULT_SIZE,
        Contender,
        FieldSettings,
        check_picture,
        measure_receptive_fields,
        receptive_field_text,
        write_json,
        write_picture,
    )
    from mmsw.demo.compose import photo_files
    from mmsw.errors import UsageError

_CHECKPOINTS = ('.pth', '.pt', '.ckpt', '.bin', '.safetensors')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EPILOG,
        usage='%(prog)s [options] [NAME=]CONFIG [CHECKPOINT] [[NAME=]CONFIG [CHECKPOINT] ...]',
    )
    parser.add_argument(
        'networks',
        nargs='+',
        metavar='[NAME=]CONFIG [CHECKPOINT]',
        help='config file, or the name of a config of mmsw; behind it the checkpoint that fills '
        f'its backbone, which ends with {", ".join(_CHECKPOINTS[:-1])} or {_CHECKPOINTS[-1]} '
        '(without one, weights are random); NAME is what the network is called (default: the file '
        'of the config)',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='PATH',
        help='image files, folders (their subfolders are included) or quoted patterns (default: '
        'the photographs of the demonstration, from installed packages)',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=50,
        metavar='N',
        help='most images to use, the first by name (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=DEFAULT_SIZE,
        metavar='PIXELS',
        help='side of the square that images are resized to, in pixels (default: %(default)s)',
    )
    parser.add_argument(
        '--stage',
        type=int,
        default=-1,
        metavar='I',
        help='index of the map among those that the backbone gives (default: -1, the last)',
    )
    parser.add_argument(
        '--absolute',
        dest='part',
        action='store_const',
        const='absolute',
        default='positive',
        help='count the absolute values of gradients (default: only those above zero, as '
        'published)',
    )
    parser.add_argument(
        '--open-branches',
        action='store_true',
        help='set layer scales near 0 and zeroed norms to 1 where weights are random; they hide '
        'the kernels of residual branches (default: as the config builds them)',
    )
    parser.add_argument(
        '--calibrate',
        action='store_true',
        help='give batch norms the statistics of the images where weights are random, as in the '
        'first step of a training (default: a mean of 0 and a variance of 1)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='seed of random weights (default: 0)'
    )
    parser.add_argument(
        '--output',
        metavar='FILE',
        help='picture to write, .svg or .png (default: no picture)',
    )
    parser.add_argument('--json', metavar='PATH', help='also write every square to this JSON file')
    parser.add_argument(
        '--device',
        default='cpu',
        metavar='DEVICE',
        help='device to run on, e.g. cuda:1 (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of all the configs, e.g. model.backbone.out_indices=0,1,2',
    )
    return parser.parse_args(argv)


def contenders(words: Sequence[str]) -> list[Contender]:
    """The networks that the command line names, in its order."""
    found: list[Contender] = []
    for word in words:
        if Path(word).suffix.lower() not in _CHECKPOINTS:
            name, sign, config = word.partition('=')
            named = bool(sign) and not {'/', '\\'} & set(name)
            config = config if named else word
            if named and not name:
                raise UsageError(f'{word} has no name before the =: write NAME=CONFIG or CONFIG')
            found.append(Contender(name if named else Path(config).stem, config))
        elif not found or found[-1].checkpoint is not None:
            raise UsageError(f'checkpoint {word} has no config before it: write CONFIG CHECKPOINT')
        else:
            found[-1] = Contender(found[-1].name, found[-1].config, word)
    return found


def photographs() -> list[Path]:
    """Those that come with packages.

    Raises:
        UsageError: If a package is missing.
    """
    try:
        return photo_files()
    except ImportError as error:
        raise UsageError(f'{error}; or name your own with --images') from error


def run(args: argparse.Namespace) -> None:
    if args.output is not None:
        check_picture(args.output)
    if args.json is not None:
        check_output(args.json)
    settings = FieldSettings(
        size=args.size,
        num_images=args.num_images,
        stage=args.stage,
        part=args.part,
        seed=args.seed,
        open_scales=args.open_branches,
        calibrate=args.calibrate,
        device=args.device,
        cfg_options=args.cfg_options or {},
    )
    measured = measure_receptive_fields(
        contenders(args.networks), args.images or photographs(), settings, progress=print
    )
    print(f'\n{receptive_field_text(measured)}')
    if args.json is not None:
        write_json(measured, settings, args.json)
    if args.output is not None:
        write_picture(measured, args.output)
        print(f'wrote {args.output}')


_EPILOG = """\
Exit code: 0 done; 2 a config, a checkpoint, an image or an option cannot be used; 130 interrupted.

Examples:
  python tools/visualize_erf.py configs/upernet_sw_t_ade20k.py --output erf.svg
  python tools/visualize_erf.py SW-T=configs/upernet_sw_t_ade20k.py run.pth R50=r50.py r50.pth
  python tools/visualize_erf.py my_config.py my_run.pth --images photos --num-images 20 --size 512
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_interruptible(lambda: run(args), options=args.cfg_options)


if __name__ == '__main__':
    sys.exit(main())
