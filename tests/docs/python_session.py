"""A Python process that runs blocks of code one after another in one namespace, for page_runner.

Reads a line of JSON per block from standard input, ``{"code", "page", "line"}``, and writes a line
to the file descriptor that is its only argument: ``ok`` or ``failed``. What a block prints, and
the traceback, go to standard output and error.
"""

import json
import linecache
import os
import sys
import traceback
import types


def run_block(code: str, page: str, line: int, namespace: dict) -> bool:
    """Runs a block; a traceback shows its lines with their numbers in the page."""
    name = f'{page} (block of line {line})'
    text = '\n' * (line - 1) + code
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    try:
        exec(compile(text, name, 'exec'), namespace)
    except BaseException as error:  # an exit is no way for a block to end either
        own = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, own)
        return False
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return True


def main() -> None:
    answers = os.fdopen(int(sys.argv[1]), 'w', encoding='utf-8')
    orders = os.fdopen(os.dup(0), encoding='utf-8')
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the orders are not the blocks' input
    sys.argv = ['']
    sys.path[0] = ''  # as in a session of a user's own: the working folder
    module = types.ModuleType('__main__')
    sys.modules['__main__'] = module
    for order in orders:
        answers.write(
            'ok\n' if run_block(**json.loads(order), namespace=vars(module)) else 'failed\n'
        )
        answers.flush()


if __name__ == '__main__':
    main()
