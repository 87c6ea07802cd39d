#!/usr/bin/env python
"""Convert the exports of annotation programs to COCO JSON, or to label maps for segmentation.

Writes the folders images, and annotations or labels, to OUT, with parts for training, validation
and testing. At the end it prints the own_data setting that trains on them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.datasets.convert import TARGETS, Request, convert, own_data_lines, summary_lines

KINDS = {
    'voc': 'Pascal VOC: one XML file with boxes per image',
    'labelme': 'labelme: one JSON file with shapes per image',
    'coco': 'COCO JSON, as CVAT, Roboflow and others export it',
    'colors': 'label maps drawn in colours, such as "Segmentation mask 1.1" of CVAT',
}
SETTINGS = ('one_based', 'table', 'mask_suffix', 'ignore_unknown')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    kinds = parser.add_subparsers(dest='kind', metavar='FORMAT', required=True)
    for kind, text in KINDS.items():
        sub = kinds.add_parser(kind, help=text, description=text)
        _add_common(sub, kind)
        if kind == 'voc':
            sub.add_argument(
                '--one-based',
                action='store_true',
                help='count pixels from 1 and include the last one in the box, as the PASCAL VOC '
                'challenge does (default: count from 0, as LabelImg, CVAT and Roboflow do)',
            )
        if kind == 'colors':
            _add_for_colors(sub)
        else:
            sub.add_argument(
                '--crowds-as-objects',
                action='store_true',
                help='treat crowds (iscrowd) and difficult objects as ordinary ones; CVAT marks '
                'what you draw with the brush as a crowd, and detectors do not learn crowds '
                '(default: keep them as crowds)',
            )
    return parser.parse_args(argv)


_EPILOG = """\
"convert_dataset.py FORMAT --help" lists the options of a format.

Exit code: 0 done; 1 something was skipped that you should look at; 2 nothing was written; 130
interrupted.

Examples:
  python tools/convert_dataset.py voc data/cells --out data/own --split 0.8 0.2
  python tools/convert_dataset.py colors data/cvat --out data/own --ignore-unknown
"""


def _add_common(parser: argparse.ArgumentParser, kind: str) -> None:
    what = 'folder or JSON file' if kind == 'coco' else 'folder'
    parser.add_argument('source', metavar='SOURCE', type=Path, help=f'{what} to read')
    parser.add_argument('--out', required=True, type=Path, metavar='OUT', help='folder to create')
    targets = TARGETS[kind]
    if len(targets) > 1:
        parser.add_argument(
            '--to',
            nargs='+',
            choices=targets,
            default=[],
            help=f'formats to write (default: {targets[0]})',
        )
    else:
        parser.set_defaults(to=[])
    parser.add_argument(
        '--images',
        nargs='+',
        type=Path,
        default=[],
        metavar='DIR',
        help='folders with the pictures (default: SOURCE and its subfolders)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='names of the classes, in the order of their numbers; other classes are left out '
        '(default: all classes of the source)',
    )
    parser.add_argument(
        '--split',
        nargs='+',
        type=float,
        metavar='SHARE',
        help='shares of the images for training, validation and, if given, testing, such as 0.8 '
        '0.2 (default: as the source is divided)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='random seed of the split (default: %(default)s)',
    )
    if 'label-maps' in targets:
        parser.add_argument(
            '--background',
            type=int,
            choices=(0, 255),
            default=0,
            help='value of pixels without an object: 0, the first class, or 255, which is ignored '
            '(default: %(default)s)',
        )
    parser.add_argument(
        '--link', action='store_true', help='link to the pictures (default: copy them)'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace OUT if an earlier conversion made it'
    )


def _add_for_colors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--table',
        type=Path,
        metavar='FILE',
        help='colours of the classes, in lines such as road:128,64,128 (default: labelmap.txt, '
        'class_dict.csv or label_colors.txt in SOURCE)',
    )
    parser.add_argument(
        '--mask-suffix',
        default='',
        metavar='TEXT',
        help='text that follows the name of the picture in the name of its mask, such as _L.png '
        '(default: only the file extension)',
    )
    parser.add_argument(
        '--ignore-unknown',
        action='store_true',
        help='ignore pixels whose colour has no class (default: skip such masks)',
    )


def show_progress(what: str, done: int, total: int) -> None:
    """Report on one line of a terminal, or once in 1000 images elsewhere."""
    if sys.stderr.isatty():
        print(f'\r{what}: {done}/{total}', end='\n' if done == total else '', file=sys.stderr)
    elif done % 1000 == 0 or done == total:
        print(f'{what}: {done}/{total}', file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    given = vars(parse_args(argv))
    settings = {key: given.pop(key) for key in SETTINGS if key in given}
    request = Request(**given, settings=settings)

    def run() -> int:
        converted = convert(request, show_progress)
        for line in summary_lines(converted, request.out):
            print(line)
        print(f'written to {request.out}\n')
        for line in own_data_lines(converted, request.out):
            print(line)
        return 1 if converted.found.left_out.skipped else 0

    try:
        return run_reporting_errors(run, also=(OSError,))
    except KeyboardInterrupt:
        print('\ninterrupted; nothing was written', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
