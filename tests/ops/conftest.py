"""The backends that the tests of the operators run on."""

from collections.abc import Iterator

import pytest

from mmsw.ops import available_backends, use_backend

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
