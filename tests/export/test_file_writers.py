"""Writing programs: whole or not at all, precisions, and files that need nothing of mmsw."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_segmentors import EXAMPLE, metadata_of, need
from torch import Tensor, nn

from mmsw.deploy.export import Program, quantize
from mmsw.deploy.export.contents import contents_of
from mmsw.deploy.export.formats import FORMATS
from mmsw.deploy.export.runtimes import open_program
from mmsw.deploy.export.writers import write_program
from mmsw.errors import UsageError


class Tiny(Program):
    """A convolution and a shape that depends on the size: exports take a second."""

    task = 'segmentation'
    outputs = ('logits',)
    settings = {'mode': 'whole'}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.conv.weight.data[:, :, 0] = 0  # as masks leave them
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        found = self.conv(image)
        return found - nn.functional.adaptive_avg_pool2d(found, 2).mean((2, 3), keepdim=True)


def write(program: Program, path: Path, format: str, **options: Any) -> None:
    need(*FORMATS[format].writes, *FORMATS[format].runs)
    values = dict(example=torch.randn(EXAMPLE), dynamic=True, metadata=metadata_of(program))
    write_program(program, path, format=format, **{**values, **options})


def name_of(format: str) -> str:
    return f'a{FORMATS[format].suffix}'


@pytest.mark.parametrize('format', FORMATS)
def test_one_size(tmp_path: Path, format: str) -> None:
    """Batch, height and width are those of the example; others are refused by the runtime."""
    program = Tiny()
    meta = metadata_of(program, size=(40, 33), batched=False)
    path = tmp_path / name_of(format)
    write(program, path, format, example=torch.randn(1, 3, 40, 33), dynamic=False, metadata=meta)
    image = torch.randn(1, 3, 40, 33)
    found = open_program(path, 1).run(image.numpy())['logits']
    np.testing.assert_allclose(found, program(image).detach(), rtol=1e-5, atol=1e-6)
    if format == 'onnx':
        import onnx

        shape = onnx.load(path).graph.input[0].type.tensor_type.shape
        assert [dim.dim_value for dim in shape.dim] == [1, 3, 40, 33]


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
@pytest.mark.parametrize('format', FORMATS)
def test_half_precision(tmp_path: Path, format: str, precision: str) -> None:
    """Float32 in and out, weights as rounded ones, and what was zero is zero."""
    torch.manual_seed(0)
    program, image = Tiny(), torch.randn(3, 3, 29, 53)
    path = tmp_path / name_of(format)
    meta = metadata_of(program, precision=precision)
    if precision == 'bfloat16' and format != 'torch':
        with pytest.raises(
            UsageError, match=rf'^format {format} does not run in bfloat16: .* float16'
        ):
            write(program, path, format, precision=precision, metadata=meta)
        assert not list(tmp_path.iterdir())
        return
    write(program, path, format, precision=precision, metadata=meta)
    found, expected = open_program(path, 1).run(image.numpy())['logits'], program(image).detach()
    error = np.abs(found - expected.numpy()).max() / expected.abs().max()
    step = {'float16': 2**-11, 'bfloat16': 2**-8}[precision]
    assert found.dtype == np.float32
    assert step / 100 < error < 4 * step
    whole = tmp_path / f'whole{FORMATS[format].suffix}'
    write(program, whole, format)
    contents, before = contents_of(path), contents_of(whole)
    assert contents.zeros == before.zeros >= 3 * 3 * 5
    assert contents.weights == before.weights


@pytest.mark.parametrize('format', FORMATS)
def test_a_file_is_whole_or_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    program, path = Tiny(), tmp_path / name_of(format)
    write(program, path, format)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before) == (2 if format == 'openvino' else 1)

    def fails(*args: Any, **kwargs: Any) -> None:
        raise OSError('no space left')

    place = {
        'onnx': 'pathlib.Path.write_bytes',
        'openvino': 'openvino.save_model',
        'torch': 'torch.export.save',
    }[format]
    monkeypatch.setattr(place, fails)
    with pytest.raises(OSError, match='no space left'):
        write(Tiny(), path, format)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


class Large(Tiny):
    """Weights of 36 KiB."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 200, 3, padding=1))


@pytest.mark.parametrize('format', [*FORMATS, 'int8', 'int8 of OpenVINO'])
def test_nothing_is_left_where_there_is_no_room(tmp_path: Path, format: str) -> None:
    """The system itself refuses what is larger than 8 KiB."""
    resource = pytest.importorskip('resource', reason='proc: no module resource, which Unix has')
    kind = {'int8': 'onnx', 'int8 of OpenVINO': 'openvino'}.get(format)
    task = partial(write, Large(), tmp_path / name_of(kind or format), format)
    if kind:
        source, image = tmp_path / 'float.onnx', torch.randn(EXAMPLE).numpy()
        write(Large(), source, 'onnx')
        task = partial(quantize, source, tmp_path / name_of(kind), [image])
    before = set(tmp_path.iterdir())
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, unlimited[1]))
    try:
        with pytest.raises(OSError, match=r'File too large|OpenVINO cannot write'):
            task()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert set(tmp_path.iterdir()) == before


def test_metadata_is_in_the_file(tmp_path: Path) -> None:
    program = Tiny()
    meta = metadata_of(program, config='some.py', density=0.25)
    for format in FORMATS:
        path = tmp_path / name_of(format)
        write(program, path, format, metadata=meta)
        assert open_program(path).metadata == meta
    assert json.loads(meta.to_text())['config'] == 'some.py'
    import onnx

    model = onnx.load(tmp_path / name_of('onnx'))
    assert [entry.key for entry in model.metadata_props] == ['mmsw']
    assert str(Path.cwd()) not in str(model)  # nothing tells where it was made


class SizeInPython(Tiny):
    """Takes one size alone."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) if image.shape[2] == 64 else image


class DataInPython(Tiny):
    """What is computed depends on a value."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) if image.sum() > 0 else image


@pytest.mark.parametrize(
    ('program', 'message'),
    [
        (SizeInPython, 'SizeInPython cannot be exported for images of any size: .* one size'),
        (DataInPython, r'DataInPython cannot be exported .*PyTorch makes no graph of it \('),
    ],
)
def test_what_has_no_graph_is_named(
    tmp_path: Path, program: Callable[[], Program], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write(program(), tmp_path / 'a.pt2', 'torch')
    assert not list(tmp_path.iterdir())
