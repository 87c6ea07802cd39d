#!/usr/bin/env python
"""Convert what annotation programs export into COCO JSON, or into label maps for segmentation.

OUT gets the folders images, and annotations or labels, each with one part for training, validation
and testing. At the end stands the own_data that trains on it. Exit code: 0; 1 if something was
skipped that you should look at; 2 if nothing was written.
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
        description=__doc__,
        epilog='"%(prog)s FORMAT --help" lists the options of a format. '
        'Example: %(prog)s voc data/cells --out data/own --split 0.8 0.2',
    )
    kinds = parser.add_subparsers(dest='kind', metavar='FORMAT', required=True)
    for kind, text in KINDS.items():
        sub = kinds.add_parser(kind, help=text, description=text)
        _add_common(sub, kind)
        if kind == 'voc':
            sub.add_argument(
                '--one-based',
                action='store_true',
                help='take the first pixel for number 1 and the last one for a part of the box, as '
                'the PASCAL VOC challenge does (default: count from 0, as LabelImg, CVAT and '
                'Roboflow do)',
            )
        if kind == 'colors':
            _add_for_colors(sub)
        else:
            sub.add_argument(
                '--crowds-as-objects',
                action='store_true',
                help='take crowds (iscrowd) and difficult objects for ordinary ones; CVAT marks '
                'what was drawn with a brush as a crowd, which no detector learns (default: keep '
                'them as crowds)',
            )
    return parser.parse_args(argv)


def _add_common(parser: argparse.ArgumentParser, kind: str) -> None:
    what = 'folder or JSON file' if kind == 'coco' else 'folder'
    parser.add_argument('source', metavar='SOURCE', type=Path, help=f'{what} to read')
    parser.add_argument(
        '--out', required=True, type=Path, metavar='OUT', help='folder to make; its parents too'
    )
    targets = TARGETS[kind]
    if len(targets) > 1:
        parser.add_argument(
            '--to',
            nargs='+',
            choices=targets,
            default=[],
            help=f'what to make (default: {targets[0]})',
        )
    else:
        parser.set_defaults(to=[])
    parser.add_argument(
        '--images',
        nargs='+',
        type=Path,
        default=[],
        metavar='DIR',
        help='folders with the pictures (default: SOURCE and the folders in it)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='names of the classes, in the order of their numbers; others are left out (default: '
        'all that the source has)',
    )
    parser.add_argument(
        '--split',
        nargs='+',
        type=float,
        metavar='SHARE',
        help='shares of the images for training, validation and perhaps testing, such as 0.8 0.2 '
        '(default: as the source is divided)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed of the split (default: %(default)s)'
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
        '--link', action='store_true', help='make links to the pictures (default: copy them)'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace OUT if an earlier conversion has made it'
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
        help='what the names of the masks have behind the name of the picture, such as _L.png '
        '(default: the ending alone)',
    )
    parser.add_argument(
        '--ignore-unknown',
        action='store_true',
        help='ignore pixels of colours without a class (default: skip such masks)',
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
