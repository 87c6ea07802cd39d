"""Fine-tune several starting points under one budget, and compare scores, sparsity and cost.

By default it uses the demo scenes and runs on a CPU. If it was stopped, the same command continues.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import _clone  # before mmsw

_clone.wait_passively()
with _clone.toolboxes_needed():
    from mmsw.benchmarks.command_line import add_study_arguments, carry_out
    from mmsw.benchmarks.transfer.plan import (
        COMPARED,
        STARTS,
        TAUGHT,
        TEACHER,
        TransferSettings,
    )
    from mmsw.benchmarks.transfer.study import DEMO_BUDGETS, TransferStudy
    from mmsw.errors import UsageError

_CONFIGS = Path(__file__).resolve().parents[1] / 'configs/demo'
_DEMO = {
    'seg': _CONFIGS / 'upernet_sw_mini_scenes.py',
    'det': _CONFIGS / 'mask_rcnn_sw_mini_scenes.py',
}
_TASKS = tuple(_DEMO)


@dataclass(frozen=True)
class _Comparison:
    """What an argument of --compare stands for."""

    configs: Sequence[str]  # [TASK=]PATH
    starts: str = 'scratch'
    task: str = 'seg'
    # iterations in which a small network learns the scenes from nothing
    budget: Sequence[str] = ('600',)
    sparsity: float | None = None  # None: as --sparsity says


_COMPARISONS = {
    'large-kernels': _Comparison(
        [
            str(_CONFIGS / f'upernet_{name}_scenes.py')
            for name in ('sw_mini', 'equ_slak_mini', 'slak_mini', 'r18_narrow')
        ]
    ),
    'ablations': _Comparison(
        [str(path) for path in sorted((_CONFIGS.parent / 'ablation').glob('*.py'))]
    ),
    'distillation': _Comparison(
        [f'{task}={path}' for task, path in _DEMO.items()],
        starts=f'{TEACHER},sparse,{TAUGHT}',
        task='both',
        budget=('seg=600', 'det=360'),
        sparsity=0.9,
    ),
}
# What else the sparse start of a network without shift-wise layers may come from.
_FROM_DENSE = {'dense': '', 'sparse': ', or prunes the dense start of other networks'}
_DEFAULT_SPARSITY = 0.4


def _budgets(comparisons: Mapping[str, _Comparison]) -> str:
    return '; '.join(f'{name} {" ".join(item.budget)}' for name, item in comparisons.items())


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    add_study_arguments(parser)
    parser.add_argument(
        '--task',
        choices=(*_TASKS, 'both'),
        default='both',
        help='segmentation (seg), detection (det) or both (default: %(default)s)',
    )
    parser.add_argument(
        '--starts',
        metavar='A,B,...',
        help=f'starts to compare, with commas between them, from {",".join(STARTS)}; config is the '
        f'start that the config of each network names (default: {",".join(COMPARED)} for the demo '
        'configs and where you name checkpoints, else config)',
    )
    parser.add_argument(
        '--budget',
        action='append',
        metavar='[TASK=]ITERS',
        help='iterations of every run; give it twice for two tasks (default: '
        f'{" ".join(f"{task}={number}" for task, number in DEMO_BUDGETS.items())} for the demo '
        'configs, else the longest schedule of the configs)',
    )
    parser.add_argument(
        '--config',
        nargs='+',
        action='extend',
        metavar='[TASK=]PATH',
        help='configs of the networks to train (default: the demo config of each task)',
    )
    parser.add_argument(
        '--compare',
        choices=tuple(_COMPARISONS),
        help='in place of --config, --task and --starts, on the demo scenes. large-kernels: '
        'segmentors from random values, shift-wise, equ-SLaK, SLaK and a ResNet-18 of equal cost; '
        'ablations: those of configs/ablation; distillation: 90 per cent of the small filters '
        'pruned, with and without a dense teacher, both tasks (default of --budget: '
        f'{_budgets(_COMPARISONS)})',
    )
    parser.add_argument(
        '--data',
        nargs='+',
        action='extend',
        metavar='[TASK=]PATH',
        help='for demo configs: folder made by tools/make_demo_data.py (default: data/demo; made '
        'if absent); for other configs, own data included: data root (default: the one in the '
        'config)',
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
            help=f'checkpoint of the {kind} start, for all shift-wise networks or for the named '
            f'one (default: for demo configs, the tool pretrains one{_FROM_DENSE[kind]}; other '
            'configs have none)',
        )
    parser.add_argument(
        '--sparsity',
        type=float,
        metavar='SHARE',
        help='share of the filters that the pretraining on the demo scenes prunes, from 0 to below '
        '1; of a network without shift-wise layers, share of the weights of each layer that are '
        f'pruned at once (default: {_DEFAULT_SPARSITY}; of --compare distillation: 0.9)',
    )
    parser.add_argument(
        '--pretrain-epochs',
        type=int,
        default=8,
        metavar='N',
        help='epochs of the pretraining on the demo scenes (default: %(default)s)',
    )
    parser.add_argument(
        '--pretrain-iters',
        type=int,
        metavar='N',
        help='iterations that the pretraining of the checkpoints had that you name; the start '
        'scratch-long trains for as many more (default: those of the pretraining on the demo '
        'scenes)',
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--evaluations',
        type=int,
        default=6,
        metavar='N',
        help='evaluations during each run, the last one at the end (default: %(default)s)',
    )
    parser.add_argument(
        '--nproc',
        type=int,
        default=1,
        metavar='N',
        help='processes of each run, started with torchrun (default: %(default)s)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        metavar='N',
        help='runs at the same time; more than one have one thread each (default: %(default)s)',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate in proportion to the images per step',
    )
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE',
        help='when all runs are finished, also put the tables into this Markdown page, between its '
        'lines for them, and the figures beside it',
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


def _take_comparison(args: argparse.Namespace) -> None:
    if args.config or args.starts or args.task != 'both':
        raise UsageError(
            f'--compare {args.compare} brings its configs, its task and its start: leave --config, '
            '--task and --starts out'
        )
    comparison = _COMPARISONS[args.compare]
    args.config, args.task = list(comparison.configs), comparison.task
    args.starts, args.budget = comparison.starts, args.budget or list(comparison.budget)
    if args.sparsity is None:
        args.sparsity = comparison.sparsity


def _study(args: argparse.Namespace) -> TransferStudy:
    if args.compare:
        _take_comparison(args)
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
        sparsity=_DEFAULT_SPARSITY if args.sparsity is None else args.sparsity,
        pretrain_epochs=args.pretrain_epochs,
        pretrain_iters=args.pretrain_iters,
        jobs=args.jobs,
        nproc=args.nproc,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        page=args.page,
        comparison=args.compare or '',
    )
    data = {task: Path(path) for task, path in _per_task(args.data or (), '--data').items()}
    configs = [(task, Path(path)) for task, path in configs]
    return TransferStudy(configs, data, args.cfg_options, settings)


_EPILOG = """\
Exit code: 0 done; 1 a run failed (see the report); 2 bad arguments.

Examples:
  python tools/benchmark_transfer.py --out work_dirs/transfer --dry-run
  python tools/benchmark_transfer.py --out work_dirs/seg --task seg --starts dense,sparse
  python tools/benchmark_transfer.py --out work_dirs/large_kernels --compare large-kernels
  python tools/benchmark_transfer.py --out work_dirs/r18 --config configs/demo/upernet_r18_scenes.py
  python tools/benchmark_transfer.py --out work_dirs/distillation --compare distillation
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return carry_out(lambda: _study(args), args)


if __name__ == '__main__':
    sys.exit(main())
