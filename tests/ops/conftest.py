"""The backends that the tests of the operators run on."""

from collections.abc import Iterator

import pytest

from mmsw.ops import available_backends, use_backend
from mmsw.ops.backends import cpp_backend

# Taichi and CUDA have files of their own: the one compiles for seconds, the other needs a GPU.
EVERY_BACKEND = ['torch', 'cpp']


@pytest.fixture(params=EVERY_BACKEND)
def every_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test on each backend, chosen by ``use_backend``."""
    reason = available_backends()[request.param]
    if reason is not True:
        pytest.skip(f'{request.param}: {reason}')
    with use_backend(request.param):
        yield request.param


@pytest.fixture(params=['avx512', 'avx2', 'baseline'])
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test of the C++ backend with each instruction set that this machine has."""
    try:
        cpp_backend.set_instruction_set(request.param)
    except ValueError:
        pytest.skip(f'instructions: this machine has no {request.param}')
    yield request.param
    cpp_backend.set_instruction_set('best')
