"""What the command lines of the tools have in common."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable

import torch
from mmengine.config import DictAction
from mmengine.dist import barrier, is_distributed

from mmsw.checkpoint import CheckpointError
from mmsw.datasets import DataError
from mmsw.engine.hooks.sparsity_report_hook import SparsityLostError

from .errors import UsageError
from .runner import LAUNCHERS


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that training and testing share."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder for logs and checkpoints (default: work_dirs/ plus the name of the config)',
    )
    parser.add_argument(
        '--data-root',
        metavar='PATH',
        help='folder of the data set, for every loader and evaluator of the config',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='changes to the config, e.g. train_cfg.max_iters=100 model.backbone.num_paths=1; '
        'lists as key=a,b or key="[(a,b),(c,d)]"',
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='how the processes were started (dist_train.sh and dist_test.sh set it)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def set_local_rank(args: argparse.Namespace) -> None:
    """Pass on what launchers older than torchrun give as an argument."""
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def run_reporting_errors(run: Callable[[], object]) -> int:
    """Run; print an error that the user can act on as one line.

    Processes of one run end together: one that leaves early, with its process group open, may abort
    and take the others down while the first is still writing.

    Returns:
        Exit code: 0, or 2 after such an error.
    """
    try:
        run()
    except (UsageError, CheckpointError, DataError, SparsityLostError) as error:
        print(f'error: {_message(error)}', file=sys.stderr)
        return 2
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()
    return 0


def run_benchmark(run: Callable[[], int], out: str) -> int:
    """Run a benchmark that can be stopped and started again; SIGTERM stops it as Ctrl-C does.

    Args:
        run: Returns the exit code.
        out: Folder that it writes to, for the message.

    Returns:
        Exit code: that of the run, 2 after an error that the user can act on, 130 if stopped.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    codes = []
    try:
        code = run_reporting_errors(lambda: codes.append(run()))
    except KeyboardInterrupt:
        print(f'\ninterrupted; what is finished is in {out}: start again to go on', file=sys.stderr)
        return 130
    return code or codes[0]


def _message(error: Exception) -> str:
    """What an error says, without the traceback around it if it comes from a data loader's worker.

    torch raises there a new error of the same type whose text is the whole traceback.
    """
    text = str(error)
    if not (isinstance(error, DataError) and text.startswith('Caught ')):
        return text
    kind = type(error)
    return text.rstrip().splitlines()[-1].removeprefix(f'{kind.__module__}.{kind.__qualname__}: ')
