"""What the command lines of the tools have in common."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from mmengine.dist import barrier, is_distributed

from mmsw.errors import MmswError

from .checks.options import misspelt_option
from .config_options import ConfigOptions
from .output import foreign_warnings_are_dropped, unread_output_is_dropped
from .run_config import LAUNCHERS

_process_groups = False  # whether this process was in one


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that training and testing share."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder for logs and checkpoints (default: work_dirs/NAME_OF_THE_CONFIG)',
    )
    parser.add_argument(
        '--data-root',
        metavar='PATH',
        help='folder of the data set, for every loader and evaluator (default: the one in the '
        'config)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. max_iters=100 model.backbone.num_paths=1; write '
        'lists as key=a,b or key="[(a,b),(c,d)]"',
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='how the processes were started; dist_train.sh and dist_test.sh set it (default: '
        '%(default)s)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a training: what a run does, and what its config then says."""
    add_common_arguments(parser)
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        '--pretrained',
        metavar='PATH',
        help='checkpoint that the backbone starts from (default: the one in the config)',
    )
    start.add_argument('--from-scratch', action='store_true', help='start without any checkpoint')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='continue from PATH; without PATH, from the latest checkpoint in the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate in proportion to the images per step',
    )
    add_monitoring_arguments(parser)


def add_monitoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say where a run is logged to, beside its work folder."""
    parser.add_argument(
        '--tensorboard',
        action='store_true',
        help='also log scalars, the density of each stage and a few pictures to TensorBoard',
    )
    parser.add_argument(
        '--wandb',
        nargs='?',
        const=True,
        default=False,
        metavar='PROJECT',
        help='also log the same to this project of Weights & Biases; WANDB_MODE=offline keeps it '
        'on this machine (default of PROJECT: mmsw)',
    )


def training_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_training_arguments` read, as keyword arguments of ``build_runner``."""
    return dict(
        work_dir=args.work_dir,
        resume=args.resume or False,
        amp=args.amp,
        launcher=args.launcher,
        cfg_options=args.cfg_options,
        data_root=args.data_root,
        pretrained=False if args.from_scratch else args.pretrained,
        auto_scale_lr=args.auto_scale_lr,
        tensorboard=args.tensorboard,
        wandb=args.wandb,
    )


def set_local_rank(args: argparse.Namespace) -> None:
    """Pass on what launchers older than torchrun give as an argument."""
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def run_reporting_errors(
    run: Callable[[], object],
    also: tuple[type[Exception], ...] = (),
    options: Iterable[str] | None = None,
) -> int:
    """Run; print an error that the user can act on as one line.

    Processes of one run end together: one that leaves early, with its process group open, may abort
    and take the others down while the first is still writing.

    Args:
        run: What to do. If it returns an int, that is the exit code.
        also: Errors beside :class:`mmsw.errors.MmswError` that the user can act on.
        options: Keys of ``--cfg-options``; an error of what does not know one is reported too.

    Returns:
        Exit code: that of ``run``, or 0, or 2 after such an error.
    """
    global _process_groups
    with unread_output_is_dropped():
        try:
            result = run()
        except (MmswError, *also) as error:
            problem = misspelt_option(error.__cause__, options or ()) or _message(error)
            print(f'error: {problem}', file=sys.stderr)
            return 2
        except TypeError as error:
            problem = misspelt_option(error, options or ())
            if problem is None:
                raise
            print(f'error: {problem}', file=sys.stderr)
            return 2
        finally:
            _process_groups = _process_groups or is_distributed()
        if is_distributed():
            barrier()
            gc.collect()  # what of a runner hangs in cycles holds the process group
            torch.distributed.destroy_process_group()
    return result if isinstance(result, int) else 0


def leave(code: int) -> NoReturn:
    """End this process, as ``sys.exit`` does, also after it worked together with others.

    A thread of torch that is left over from a process group can abort the interpreter while it
    takes itself apart. The process then ends right before that, once all else is done that is done
    at an exit.

    Args:
        code: Exit code.
    """
    if _process_groups:
        atexit.register(_end, code)
    sys.exit(code)


def _end(code: int) -> None:
    """Called first at the exit, since it was registered last; the other functions come next."""
    try:
        atexit.unregister(_end)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run_interruptible(
    run: Callable[[], object], options: Iterable[str] | None = None, message: str = 'interrupted'
) -> int:
    """Run what can be stopped; SIGTERM stops it as Ctrl-C does.

    Warnings of others than mmsw are not printed.

    Args:
        run: As for :func:`run_reporting_errors`.
        options: As there.
        message: What to say if it was stopped.

    Returns:
        Exit code: as there, or 130 if stopped.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        with foreign_warnings_are_dropped():
            return run_reporting_errors(run, options=options)
    except KeyboardInterrupt:
        print(f'\n{message}', file=sys.stderr)
        return 130


def run_benchmark(run: Callable[[], int], out: str) -> int:
    """Run a benchmark that can be stopped and started again.

    Args:
        run: Returns the exit code.
        out: Folder that it writes to, for the message.

    Returns:
        Exit code: that of the run, 2 after an error that the user can act on, 130 if stopped.
    """
    message = f'interrupted; what is finished is in {out}: start again to go on'
    return run_interruptible(run, message=message)


def run_measurement(measure: Callable[[], dict], out: str, goes_on: bool = False) -> int:
    """Run a benchmark that writes one report, and say what went wrong in it.

    Args:
        measure: Returns the report; its ``errors`` are lines.
        out: Folder that it writes to, for the message.
        goes_on: Whether the same call goes on where it was stopped.

    Returns:
        Exit code: 1 if the report has errors, 2 after an error that the user can act on, 130 if
        stopped.
    """

    def run() -> int:
        errors = measure()['errors']
        for problem in errors:
            print(f'error: {problem}', file=sys.stderr)
        print(f'wrote benchmark.md and benchmark.json to {out}')
        return 1 if errors else 0

    try:
        return run_reporting_errors(run, also=(ImportError, ValueError, OSError))
    except KeyboardInterrupt:
        more = '; start again to go on' if goes_on else ''
        print(f'\ninterrupted; no report was written to {out}{more}', file=sys.stderr)
        return 130


def _message(error: Exception) -> str:
    """What an error says, in one line, without the traceback of a data loader's worker around it.

    torch raises there a new error of the same type whose text is the whole traceback.
    """
    text = str(error).strip()
    kind = type(error)
    if text.startswith(f'Caught {kind.__name__} in '):
        last = text.splitlines()[-1]
        return last.removeprefix(f'{kind.__module__}.{kind.__qualname__}: ')
    return ' '.join(line.strip() for line in text.splitlines())
