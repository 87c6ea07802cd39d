"""Fine-tune several starting points under one budget; tell how they differ and what they cost.

By default on the demo scenes, on a CPU. Started again it goes on where it was stopped. Runs from a
clone as it is, installed or not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import _clone  # before mmsw

_clone.wait_passively()
with _clone.toolboxes_needed():
    from mmsw.benchmarks.command_line import add_study_arguments, carry_out
    from mmsw.benchmarks.transfer.plan import COMPARED, STARTS, TransferSettings
    from mmsw.benchmarks.transfer.study import DEMO_BUDGETS, TransferStudy
    from mmsw.errors import UsageError

_CONFIGS = Path(__file__).resolve().parents[1] / 'configs/demo'
_DEMO = {
    'seg': _CONFIGS / 'upernet_sw_mini_scenes.py',
    'det': _CONFIGS / 'mask_rcnn_sw_mini_scenes.py',
}
_TASKS = tuple(_DEMO)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study_arguments(parser)
    parser.add_argument('--task', choices=(*_TASKS, 'both'), default='both', help='(%(default)s)')
    parser.add_argument(
        '--starts',
        metavar='A,B,...',
        help=f'some of {",".join(STARTS)}; config means: as the config of each network says '
        f'(default: {",".join(COMPARED)} for the demo configs or where checkpoints are named, '
        'else config)',
    )
    parser.add_argument(
        '--budget',
        action='append',
        metavar='[TASK=]ITERS',
        help='iterations of every run (default: '
        f'{" ".join(f"{task}={number}" for task, number in DEMO_BUDGETS.items())} for the demo '
        'configs, else as many as the longest schedule of the configs has)',
    )
    parser.add_argument(
        '--config',
        nargs='+',
        action='extend',
        metavar='[TASK=]PATH',
        help='networks to train, any number of them (default: the demo config of each task)',
    )
    parser.add_argument(
        '--data',
        nargs='+',
        action='extend',
        metavar='[TASK=]PATH',
        help='folder of the data: of make_demo_data.py for demo configs (data/demo; made if '
        'absent), the data root for others, own data included (default: as the configs say)',
    )
    _add_start_arguments(parser)
    _add_run_arguments(parser)
    return parser.parse_args(argv)


def _add_start_arguments(parser: argparse.ArgumentParser) -> None:
    for kind in ('dense', 'sparse'):
        parser.add_argument(
            f'--pretrained-{kind}',
            nargs='+',
            action='extend',
            metavar='[NETWORK=]PATH',
            help=f'checkpoint of the {kind} start, for all shift-wise networks or for the one of '
            'that name (default: a pretraining on the demo scenes, where the config is for them)',
        )
    parser.add_argument(
        '--sparsity',
        type=float,
        default=0.4,
        help="share of the filters that the demo's pretraining prunes (%(default)s)",
    )
    parser.add_argument(
        '--pretrain-epochs', type=int, default=8, help='of the same pretraining (%(default)s)'
    )
    parser.add_argument(
        '--pretrain-iters',
        type=int,
        metavar='N',
        help='iterations that the pretraining of the named checkpoints had; the start '
        'scratch-long trains for as many more (default: those of the pretraining on the demo '
        'scenes)',
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--evaluations', type=int, default=6, help='points of a learning curve (%(default)s)'
    )
    parser.add_argument(
        '--nproc', type=int, default=1, help='processes of a run, under torchrun (%(default)s)'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the total batch size',
    )


def _named(text: str, names: Sequence[str], option: str) -> tuple[str | None, str]:
    """``NAME=VALUE`` or ``VALUE``."""
    name, sign, value = text.partition('=')
    if not sign:
        return None, text
    if name not in names:
        raise UsageError(f'{option} {text}: expected one of {", ".join(names)} before =')
    return name, value


def _per_task(texts: Sequence[str], option: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for text in texts:
        task, value = _named(text, _TASKS, option)
        values.update(dict.fromkeys(_TASKS if task is None else (task,), value))
    return values


def _study(args: argparse.Namespace) -> TransferStudy:
    tasks = _TASKS if args.task == 'both' else (args.task,)
    configs = [_named(text, _TASKS, '--config') for text in args.config or ()]
    if not configs:
        configs = [(task, str(_DEMO[task])) for task in tasks]
    elif args.task != 'both':
        configs = [(task or args.task, path) for task, path in configs]
        if any(task != args.task for task, _ in configs):
            raise UsageError(f'--task {args.task} does not go with {" ".join(args.config)}')
    budgets = {}
    for task, text in _per_task(args.budget or (), '--budget').items():
        if not text.isdecimal():
            raise UsageError(f'--budget must be a number of iterations, got {text!r}')
        budgets[task] = int(text)
    pretrained = {}
    for kind in ('dense', 'sparse'):
        for text in getattr(args, f'pretrained_{kind}') or ():
            name, sign, path = text.partition('=')
            pretrained[(kind, name) if sign else (kind, '')] = Path(path if sign else text)
    settings = TransferSettings(
        out=args.out,
        starts=tuple(args.starts.split(',')) if args.starts else (),
        seeds=args.seeds,
        budgets=budgets,
        evaluations=args.evaluations,
        pretrained=pretrained,
        sparsity=args.sparsity,
        pretrain_epochs=args.pretrain_epochs,
        pretrain_iters=args.pretrain_iters,
        nproc=args.nproc,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
    )
    data = {task: Path(path) for task, path in _per_task(args.data or (), '--data').items()}
    configs = [(task, Path(path)) for task, path in configs]
    return TransferStudy(configs, data, args.cfg_options, settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return carry_out(lambda: _study(args), args)


if __name__ == '__main__':
    sys.exit(main())
