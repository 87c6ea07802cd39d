"""Runs the blocks of a page in their order, in one folder, and says which one fails and how."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from page_blocks import Block, PageError

LIMIT = 600  # seconds that a block may take; the machine may be busy with other things
SHOWN_LINES = 60
_SESSION = Path(__file__).with_name('python_session.py')
# A process in the background could fail, or be ended with the block, and nobody would see it.
_NO_JOBS = (
    "trap '[[ -z $(jobs -rp) ]] || "
    '{ echo "a process that this block started in the background still runs; wait for it" >&2; '
    "exit 125; }' EXIT; "
)


def environment() -> dict[str, str]:
    """As a user has it who activated the environment of this Python; no network."""
    steering = ('MMSW_', 'PYTEST_', 'COV_', 'PYTHON', 'MAKE', 'MFLAGS', 'STACK', 'COLUMNS')
    env = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    nowhere = 'http://127.0.0.1:9'
    return env | {
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{env.get("PATH", os.defpath)}',
        'PYTHONUNBUFFERED': '1',
        'OMP_NUM_THREADS': env.get('OMP_NUM_THREADS', '1'),
        'MPLBACKEND': 'Agg',
        'PIP_NO_INDEX': '1',
        'no_proxy': 'localhost,127.0.0.1',
        **dict.fromkeys(('http_proxy', 'https_proxy', 'all_proxy'), nowhere),
    }


class PageRunner:
    """Runs blocks in a folder; bash blocks in a shell of their own, python blocks in one process.

    Args:
        folder: The working folder.
        limit: Seconds that a block may take.
    """

    def __init__(self, folder: Path, limit: float = LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self._python: subprocess.Popen | None = None
        self._answers = -1
        self._output = folder.parent / f'{folder.name}.output'

    def __enter__(self) -> PageRunner:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._python is not None:
            self._python.stdin.close()
            os.close(self._answers)
            self._kill(self._python)

    def run(self, block: Block) -> str:
        """Runs a block; returns what it printed.

        Raises:
            PageError: If it fails, ends with another exit code or takes too long.
        """
        if block.config_name:
            path = self.folder / block.config_name
            path.write_text(block.code, encoding='utf-8')
            load = f'__import__("mmsw.apis").apis.load_config({block.config_name!r})'
            return self._run_python(block, load)
        if block.language == 'python':
            return self._run_python(block, block.code)
        return self._run_bash(block)

    def _run_bash(self, block: Block) -> str:
        with self._output.open('wb') as output:
            process = subprocess.Popen(
                ['bash', '-eu', '-o', 'pipefail', '-c', _NO_JOBS + block.code],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(self.limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:  # also after Ctrl-C, which does not reach a session of its own
                self._kill(process)
        printed = self._printed(0)
        if code is None:
            raise self._failure(block, f'not done within {self.limit:g} seconds', printed)
        if code != block.exit_code:
            raise self._failure(block, f'exit code {code}, expected {block.exit_code}', printed)
        return printed

    def _run_python(self, block: Block, code: str) -> str:
        if self._python is None:
            self._start_python()
        before = self._session_output.stat().st_size
        order = dict(code=code, page=block.page.name, line=block.line)
        try:
            self._python.stdin.write((json.dumps(order) + '\n').encode())
            self._python.stdin.flush()
        except BrokenPipeError:
            raise self._failure(block, 'the Python process of the page has ended', '') from None
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            answer = os.read(self._answers, 64) if selector.select(self.limit) else None
        printed = self._printed(before, self._session_output)
        if answer is None:
            raise self._failure(block, f'not done within {self.limit:g} seconds', printed)
        if answer != b'ok\n':
            what = 'the block raised an error' if answer else 'the block ended its process'
            raise self._failure(block, what, printed)
        return printed

    def _start_python(self) -> None:
        self._session_output = self._output.with_suffix('.python')
        self._answers, answering = os.pipe()
        with self._session_output.open('wb') as output:
            self._python = subprocess.Popen(
                [sys.executable, _SESSION, str(answering)],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[answering],
                start_new_session=True,
            )
        os.close(answering)

    def _printed(self, start: int, path: Path | None = None) -> str:
        return (path or self._output).read_bytes()[start:].decode('utf-8', 'replace')

    @staticmethod
    def _kill(process: subprocess.Popen) -> None:
        """Ends a block's process with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @staticmethod
    def _failure(block: Block, what: str, printed: str) -> PageError:
        lines = printed.splitlines()
        left_out = (
            [f'[{len(lines) - SHOWN_LINES} lines left out]'] if len(lines) > SHOWN_LINES else []
        )
        output = '\n'.join(left_out + lines[-SHOWN_LINES:]) or '[nothing]'
        return PageError(
            f'{block.place}: {what}\n--- {block.language} block\n{block.code.rstrip()}\n'
            f'--- it printed\n{output}'
        )
