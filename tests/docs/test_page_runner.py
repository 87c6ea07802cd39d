"""A page that says what is not so fails: exit codes, errors, time, and what blocks share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_blocks import Block, PageError
from page_runner import PageRunner, environment


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[PageRunner]:
    folder = tmp_path / 'page'
    folder.mkdir()
    with PageRunner(folder, limit=60) as runner:
        yield runner


def block(language: str, code: str, **more: object) -> Block:
    return Block(Path('docs/page.md'), 7, language, code, **more)


def failure(runner: PageRunner, *what: object, **more: object) -> str:
    with pytest.raises(PageError) as caught:
        runner.run(block(*what, **more))
    return str(caught.value)


def test_blocks_of_both_languages_share_the_folder(runner: PageRunner) -> None:
    runner.run(block('bash', 'echo 3 >a'))
    assert runner.run(block('python', 'x = int(open("a").read())\nprint("x is", x)')) == 'x is 3\n'
    assert runner.run(block('python', 'print(x + 1)')) == '4\n'
    runner.run(block('python', 'open("b", "w").write("written")'))
    assert runner.run(block('bash', 'cat b')) == 'written'


@pytest.mark.parametrize('code', ['false', 'false | true', 'echo $absent', 'exit 3', 'false\ntrue'])
def test_a_shell_block_that_fails(runner: PageRunner, code: str) -> None:
    message = failure(runner, 'bash', f'echo before\n{code}\n')
    assert message.startswith('page.md:7: exit code ')
    assert ', expected 0\n--- bash block\necho before\n' in message
    assert '--- it printed\nbefore' in message


def test_the_exit_code_is_that_of_the_page(runner: PageRunner) -> None:
    runner.run(block('bash', 'exit 2', exit_code=2))
    assert 'exit code 0, expected 2' in failure(runner, 'bash', 'true', exit_code=2)
    assert 'exit code 1, expected 2' in failure(runner, 'bash', 'false', exit_code=2)


@pytest.mark.parametrize(
    ('code', 'printed'),
    [
        ('x = 1\n1 / 0\n', 'line 8, in <module>\n    1 / 0\nZeroDivisionError'),
        ('import sys\nsys.exit(0)', 'SystemExit: 0'),
        ('print("before")\nassert 1 == 2', 'AssertionError'),
    ],
)
def test_a_python_block_that_fails(runner: PageRunner, code: str, printed: str) -> None:
    message = failure(runner, 'python', code)
    assert message.startswith('page.md:7: the block raised an error\n--- python block\n')
    assert printed in message.replace('    ~~^~~\n', '')
    assert 'python_session' not in message


def test_a_python_block_that_ends_its_process(runner: PageRunner) -> None:
    assert 'the block ended its process' in failure(runner, 'python', 'import os; os._exit(0)')
    assert ' ended' in failure(runner, 'python', 'x = 1')


def test_blocks_that_never_end(runner: PageRunner) -> None:
    runner.limit = 0.3
    start = time.monotonic()
    assert 'not done within 0.3 seconds' in failure(runner, 'bash', 'sleep 50 & echo a; wait')
    assert 'not done within 0.3 seconds' in failure(runner, 'python', 'while True: pass')
    assert time.monotonic() - start < 20


def test_a_block_waits_for_what_it_starts(runner: PageRunner) -> None:
    fifo = runner.folder / 'held'
    os.mkfifo(fifo)
    message = failure(runner, 'bash', 'sleep 50 <>held &')
    assert 'started in the background still runs' in message
    with pytest.raises(OSError, match='No such device'):  # nobody holds the other end
        held_for_seconds(fifo)
    runner.run(block('bash', 'sleep 0.01 & wait'))


def held_for_seconds(fifo: Path) -> None:
    for _ in range(100):
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.05)


LOADER = 'def load_config(name):\n    exec(open(name).read(), {})\n    print("loaded", name)\n'


def test_a_config_is_written_and_loaded(runner: PageRunner) -> None:
    package = runner.folder / 'mmsw'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'apis.py').write_text(LOADER, encoding='utf-8')
    assert runner.run(block('python', '# mine.py\nsecret = 1\n')) == 'loaded mine.py\n'
    assert runner.run(block('bash', 'cat mine.py')) == '# mine.py\nsecret = 1\n'
    assert 'NameError' in failure(runner, 'python', 'secret')
    assert 'NameError' in failure(runner, 'python', '# mine.py\nabsent\n')


def test_blocks_see_the_environment_of_a_user(runner: PageRunner, monkeypatch) -> None:
    for name in ('PYTHONPATH', 'MMSW_BACKEND', 'PYTEST_ADDOPTS', 'COLUMNS'):
        monkeypatch.setenv(name, 'x')
    assert not {'PYTHONPATH', 'MMSW_BACKEND', 'PYTEST_ADDOPTS', 'COLUMNS'} & set(environment())
    code = 'import sys; print(sys.prefix)'
    assert runner.run(block('bash', f'python -c "{code}"')) == runner.run(block('python', code))


def test_main_holds_the_names_of_the_blocks(runner: PageRunner) -> None:
    """So that workers of a data loader find the classes that a page defines."""
    code = 'import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__module__)'
    assert runner.run(block('python', code)) == '__main__\n'
