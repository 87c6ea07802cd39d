"""Show what is pruned in a checkpoint of any network, per part and per layer.

Any network: zeros and masks of each layer, and the pattern of the zeros (filters, channels, blocks,
2:4, single weights). Shift-wise networks and SLaK: also by distance, and what that saves; as their
authors publish them, converted, pretrained, or saved by tools/train.py.
docs/sparsity_analysis.md explains each figure.
"""

import argparse
import sys
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.analysis.sparsity import (
        NetworkComparison,
        NetworkSparsity,
        SparsityAnalysis,
        SparsityComparison,
        first_layer_table,
    )
    from mmsw.apis.cli import run_reporting_errors
    from mmsw.apis.complexity_report import check_output
    from mmsw.apis.sparsity_analysis import (
        COMPARISON,
        DEFAULT_SHAPE,
        JSON,
        PICTURE,
        TEXT,
        analyze_sparsity,
        check_folder,
        compare_other_layers,
        compare_sparsity,
        other_layers,
        sparsity_text,
        write_comparison,
        write_json,
        write_report,
    )
    from mmsw.errors import UsageError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file to analyse')
    parser.add_argument(
        '--config',
        metavar='CONFIG',
        help='of a shift-wise network or SLaK: config whose backbone is built and filled from the '
        'checkpoint (default: read the architecture from the tensors)',
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        '--compare',
        metavar='OTHER',
        help='put another checkpoint of the same network against it, for instance the fine-tuned '
        'one: what both keep, and which zeros are lost',
    )
    kind.add_argument(
        '--first-layers',
        action='store_true',
        help='print only the density of the first layer of each stage of a shift-wise network',
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        help=f'folder to write {PICTURE} (and .svg), {JSON} and {TEXT} (the printed text) to; with '
        f'--compare they are called {COMPARISON}.png and so on',
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        default=DEFAULT_SHAPE,
        metavar=('H', 'W'),
        help='height and width of the image in pixels, for the multiply-adds of shift-wise '
        'networks (default: 512 512, the crop for ADE20K); tools/get_flops.py counts any network',
    )
    parser.add_argument('--json', metavar='PATH', help='also write every figure to this JSON file')
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    if args.out is not None:
        check_folder(args.out)
    if args.json is not None:
        check_output(args.json)
    if args.compare is not None:
        _compare(args)
    else:
        _analyze(args)


def _analyze(args: argparse.Namespace) -> None:
    analysis = analyze_sparsity(args.checkpoint, args.config, args.shape)
    text = _first_layers(analysis) if args.first_layers else _text(analysis, args.checkpoint)
    if args.out is not None:
        write_report(analysis, text, args.out)
    if args.json is not None:
        write_json(analysis, args.json)
    print(text)
    if args.out is not None:
        print(f'\nwrote {PICTURE} (and .svg), {JSON} and {TEXT} to {args.out}')


def _first_layers(analysis: SparsityAnalysis | NetworkSparsity) -> str:
    if isinstance(analysis, NetworkSparsity):
        raise UsageError(
            f'{analysis.source} is of a network without shift-wise layers or large kernels of '
            'SLaK: leave --first-layers out'
        )
    return first_layer_table(analysis)


def _text(analysis: SparsityAnalysis | NetworkSparsity, checkpoint: str) -> str:
    """With the other layers of the file where some of them are pruned."""
    text = sparsity_text(analysis)
    others = None if isinstance(analysis, NetworkSparsity) else other_layers(checkpoint)
    return f'{text}\n\nOther layers\n{sparsity_text(others)}' if others else text


def _compare(args: argparse.Namespace) -> None:
    comparison = compare_sparsity(args.checkpoint, args.compare, args.config)
    text = _comparison_text(comparison, args.checkpoint, args.compare)
    if args.out is not None:
        write_comparison(comparison, text, args.out)
    if args.json is not None:
        write_json(comparison, args.json)
    print(text)
    if args.out is not None:
        print(f'\nwrote {COMPARISON}.png (and .svg), .json and .txt to {args.out}')


def _comparison_text(
    comparison: SparsityComparison | NetworkComparison, first: str, second: str
) -> str:
    """With the other layers of the files where some are pruned, and lost zeros at the top."""
    text = sparsity_text(comparison)
    if isinstance(comparison, NetworkComparison):
        return text
    try:
        others = compare_other_layers(first, second)
    except UsageError as error:
        return f'{text}\n\nOther layers are not compared: {error}'
    if others is None:
        return text
    sections = [text, f'Other layers\n{sparsity_text(others)}']
    return '\n\n'.join(reversed(sections) if others.total.zeros_lost else sections)


_EPILOG = """\
Exit code: 0 done; 2 the checkpoint, the config or an option cannot be used.

Examples:
  python tools/analyze_sparsity.py work_dirs/demo/pretrained_sparse.pth
  python tools/analyze_sparsity.py work_dirs/demo/pretrained_sparse.pth --out work_dirs/sparsity
  python tools/analyze_sparsity.py work_dirs/demo/pretrained_sparse.pth --first-layers
  python tools/analyze_sparsity.py pruned_r50.pth --compare work_dirs/mask_rcnn/epoch_12.pth
  python tools/analyze_sparsity.py work_dirs/demo/pretrained_sparse.pth --compare fine_tuned.pth
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
