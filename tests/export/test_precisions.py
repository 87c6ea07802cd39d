"""Files of half precision: what runs, how far off it is, and zeros that stay zero."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from segmentor_cases import error, segmentor, write
from tiny_segmentors import by_mmseg, metadata_of

from mmsw.deploy.export import program_of
from mmsw.deploy.export.contents import contents_of
from mmsw.deploy.export.precisions import check_precision
from mmsw.deploy.export.runtimes import open_program
from mmsw.deploy.export.writers import write_program
from mmsw.errors import UsageError

CASES = [
    ('onnx', '.onnx', 'float16', 1e-2),
    ('openvino', '.xml', 'float16', 1e-2),
    ('torch', '.pt2', 'float16', 1e-2),
    ('torch', '.pt2', 'bfloat16', 1e-1),
]


@pytest.mark.slow
@pytest.mark.parametrize(('format', 'suffix', 'precision', 'most'), CASES)
def test_half_precision(
    format: str, suffix: str, precision: str, most: float, tmp_path: Path
) -> None:
    model = copy.deepcopy(segmentor('resnet', 'fcn'))
    pruned = [part for part in model.parameters() if part.ndim == 4]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in pruned:
            part[torch.rand(part.shape, generator=generator) < 0.4] = 0
    zeros = sum(int((part == 0).sum()) for part in pruned)
    file = write(model, tmp_path / f'file{suffix}', format, precision)
    contents = contents_of(file)
    assert contents.zeros >= zeros
    assert contents.zeros < 1.02 * zeros
    for shape in ((1, 3, 64, 96), (2, 3, 75, 41)):
        image = torch.randn(shape)
        found = torch.from_numpy(open_program(file, 1).run(image.numpy())['logits'])
        assert found.dtype == torch.float32
        off = error(found, by_mmseg(model, image))
        assert 1e-5 < off < most  # half, and no more than that


def test_what_does_not_run_is_refused(tmp_path: Path) -> None:
    check_precision('onnx', 'float16')
    for format in ('onnx', 'openvino'):
        refusal = f'format {format} does not run in bfloat16: .*choose float16'
        with pytest.raises(UsageError, match=refusal):
            check_precision(format, 'bfloat16')
    with pytest.raises(UsageError, match=r'format torch does not run in int8: choose format onnx'):
        check_precision('torch', 'int8')
    model = copy.deepcopy(segmentor('resnet', 'fcn'))
    with torch.no_grad():
        model.decode_head.conv_seg.weight[0, 0] = 1e5
    program = program_of(model)

    def attempt(format: str, precision: str) -> None:
        write_program(
            program,
            tmp_path / 'file',
            format=format,
            example=torch.randn(1, 3, 64, 64),
            dynamic=True,
            precision=precision,
            metadata=metadata_of(program, precision=precision),
        )

    with pytest.raises(UsageError, match=r'weight of 1e\+05, and float16 holds numbers up to'):
        attempt('torch', 'float16')
    with pytest.raises(UsageError, match='precision must be one of float32, float16, bfloat16'):
        attempt('torch', 'int4')
    with pytest.raises(UsageError, match='format must be one of onnx, openvino, torch'):
        attempt('tflite', 'float32')
    assert not list(tmp_path.iterdir())
