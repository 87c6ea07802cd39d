"""The cost model of the CUDA kernels: its counts, what binds, and its place in the report."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmsw.benchmarks.operator import gpu_model
from mmsw.benchmarks.operator.gpu_model import DIRECTIONS, Layer, expected, find_gpu, section

A100, H100 = 'NVIDIA A100-SXM4-80GB', 'NVIDIA H100 80GB HBM3'
STAGES = [
    Layer(16, 60, 128, 51, 3),
    Layer(16, 122, 64, 49, 3),
    Layer(16, 246, 32, 47, 3),
    Layer(16, 492, 16, 13, 3),
]


@pytest.mark.parametrize(
    ('device', 'name'),
    [
        (A100, 'A100 80GB'),
        ('NVIDIA A100 80GB PCIe', 'A100 80GB PCIe'),
        ('NVIDIA A100-PCIE-40GB', 'A100'),
        (H100, 'H100'),
        ('NVIDIA H100 PCIe', 'H100 PCIe'),
        ('NVIDIA H200', 'H200'),
        ('NVIDIA GeForce RTX 3090', None),
    ],
)
def test_finds_the_gpu_by_its_name(device: str, name: str | None) -> None:
    found = find_gpu(device)
    assert (found and found.name) == name


def test_peaks_are_the_published_ones() -> None:
    """19.5, 51.2 and 66.9 teraflops, two to a multiply-add."""
    for device, peak in ((A100, 19.5e12), ('NVIDIA H100 PCIe', 51.2e12), (H100, 66.9e12)):
        assert 2 * find_gpu(device).multiply_adds_per_s == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize('layer', [Layer(2, 3, 9, 13, 3), Layer(1, 2, 5, 51, 5)], ids=str)
def test_multiply_adds_are_those_that_meet_the_map(layer: Layer) -> None:
    """Counted by convolving ones with ones, the arms as long as their slots."""
    taps = -(-layer.big_kernel // layer.small_kernel) * layer.small_kernel
    before = layer.big_kernel // 2
    ones = torch.ones(1, 1, layer.size, layer.size, dtype=torch.float64)
    rows = F.pad(ones, (layer.small_kernel // 2,) * 2 + (before, taps - 1 - before))
    arm = F.conv2d(rows, torch.ones(1, 1, taps, layer.small_kernel, dtype=torch.float64)).sum()
    side = layer.small_kernel
    small = F.conv2d(
        ones, torch.ones(1, 1, side, side, dtype=torch.float64), padding=side // 2
    ).sum()
    found = expected(A100, layer, 'forward').multiply_adds
    assert found == layer.batch * layer.channels * int(2 * arm + small)


@pytest.mark.parametrize('direction', DIRECTIONS)
def test_shared_loads_are_those_that_the_machine_code_has(direction: str) -> None:
    for layer in STAGES:
        for device in (A100, H100):
            found = expected(device, layer, direction)
            assert found.shared_loads <= 0.2
            assert 0.09 < found.share_of_peak < 0.75
            assert found.seconds > found.bytes / find_gpu(device).bytes_per_s
    # N = 5, and half precision halves the bytes only
    half = expected(H100, STAGES[0], direction, 'bfloat16')
    assert half.bytes == expected(H100, STAGES[0], direction).bytes // 2
    assert expected(H100, Layer(1, 60, 128, 51, 5), direction).shared_loads <= 0.2


def test_what_the_model_does_not_know() -> None:
    assert expected('NVIDIA GeForce RTX 3090', STAGES[0], 'forward') is None
    assert expected(A100, Layer(1, 8, 32, 21, 7), 'forward') is None
    assert expected(A100, STAGES[0], 'forward', 'float64') is None
    with pytest.raises(ValueError, match=r"direction must be one of .*, got 'sideways'"):
        expected(A100, STAGES[0], 'sideways')


def test_the_report_shows_the_model_beside_the_measurement() -> None:
    layer = STAGES[0]
    model = 1e3 * expected(A100, layer, 'forward').seconds
    row = layer._asdict() | dict(
        name='mmsw cuda',
        dtype='float32',
        mode='forward',
        sweep=False,
        sparsity=0.0,
        median_ms=2 * model,
    )
    others = [row | dict(name='mmsw torch'), row | dict(sweep=True), row | dict(small_kernel=7)]
    lines = section(A100, [row, row | dict(mode='forward+backward'), *others])
    table = [line for line in lines if line.startswith('| 60, 128 x 128, 51/3, 16')]
    assert next(line.split(' | ')[1:5] for line in table) == [
        'forward', f'{2 * model:.3f}', f'{model:.3f}', '2.00',
    ]  # fmt: skip
    assert len(table) == 2
    assert section(None, [row]) == []
    assert section('NVIDIA GeForce RTX 3090', [row]) == []
    assert section(A100, others) == []


def test_the_table_for_the_documentation() -> None:
    text = gpu_model.table([A100, H100], STAGES)
    assert text.count('\n') == 1 + 2 * len(STAGES) * len(DIRECTIONS)
