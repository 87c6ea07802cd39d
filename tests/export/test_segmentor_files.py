"""Files of segmentors, against mmseg at sizes that they were not traced at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_segmentors import EXAMPLE, metadata_of, need, segmentor
from torch import Tensor, nn

from mmsw.deploy.export import Program, program_of
from mmsw.deploy.export.formats import FORMATS
from mmsw.deploy.export.openvino_core import openvino_core
from mmsw.deploy.export.runtimes import ExportedProgram, open_program
from mmsw.deploy.export.sliding import slide
from mmsw.deploy.export.writers import write_program

TIGHT = 2e-6  # of the largest logit


class Written(NamedTuple):
    """A model, its program, and where the file of a format is; written when asked for."""

    model: nn.Module
    program: Program
    file: Callable[[str], Path]


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """Each backbone's model and files, written once."""
    folder, known = tmp_path_factory.mktemp('files'), {}

    def of(backbone: str) -> Written:
        if backbone not in known:
            torch.manual_seed(0)
            model = segmentor(backbone)
            program = program_of(model)

            def file(format: str) -> Path:
                path = folder / f'{backbone}{FORMATS[format].suffix}'
                if not path.exists():
                    write(program, path, format)
                return path

            known[backbone] = Written(model, program, file)
        return known[backbone]

    return of


def write(program: Program, path: Path, format: str, example: Any = EXAMPLE, **options) -> None:
    need(*FORMATS[format].writes, *FORMATS[format].runs)
    write_program(
        program,
        path,
        format=format,
        example=torch.randn(example),
        metadata=metadata_of(program),
        **{'dynamic': True, **options},
    )


def run(program: ExportedProgram, image: Tensor) -> Tensor:
    return torch.from_numpy(program.run(image.numpy())['logits'])


def check_logits(found: Tensor, expected: Tensor, allowed: float = TIGHT) -> None:
    """Nearly equal, and the same classes wherever two of them are not as near as that."""
    assert found.shape == expected.shape
    allowed = allowed * expected.abs().max()
    assert (found - expected).abs().max() <= allowed
    best, second = expected.topk(2, dim=1).values.unbind(1)
    clear = best - second > 2 * allowed
    assert clear.float().mean() > 0.9
    assert torch.equal(found.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.slow
def test_axes_are_open_in_every_format(written) -> None:
    _, _, file = written('v2')
    import onnx

    graph = onnx.load(file('onnx')).graph
    dims = [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)]  # fmt: skip
    assert dims == [['batch', 3, 'height', 'width'], ['batch', 5, 'height', 'width']]
    shape = openvino_core().read_model(file('openvino')).input('image').partial_shape
    assert [dim.is_dynamic for dim in shape] == [True, False, True, True]
    graph = torch.export.load(file('torch'))
    ranges = [(limit.lower, limit.upper) for limit in graph.range_constraints.values()]
    assert sorted(ranges) == [(1, 1024), (33, 16384), (33, 16384)]
    assert graph.example_inputs is None


def test_operators_that_folding_removes_are_not_in_the_graph(written) -> None:
    """Maps are transposed around layer norms alone; the rest are matrices of the pooling."""
    import onnx

    model = onnx.load(written('v2').file('onnx'))
    nodes = model.graph.node
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {('', 20)}
    assert {node.domain for node in nodes} == {''}
    assert not model.functions
    count = Counter(node.op_type for node in nodes)
    assert not {'BatchNormalization', 'If', 'Loop', 'Identity', 'Dropout'} & set(count)
    blocks, norms, pools = 4, count['LayerNormalization'], 3
    in_blocks = 2 * blocks + 2 * blocks + 2 * blocks  # arms, products, channel attention
    transposed = Counter(
        tuple(node.attribute[0].ints) for node in nodes if node.op_type == 'Transpose'
    )
    assert transposed == {(0, 2, 3, 1): norms, (0, 3, 1, 2): norms, (1, 0): pools}
    assert count['Gelu'] == 5  # of each block, and of the stem
    assert count['Conv'] == in_blocks + 5 + 4 + 1 + 3 + 3 + 1 + 1


def test_openvino_transposes_no_map(written) -> None:
    """Its wide kernels are wide, and norms over the channels are means over the channels."""
    file = written('v2').file('openvino')
    nodes = openvino_core().read_model(file).get_ops()
    kinds = Counter(node.get_type_name() for node in nodes)
    pools = 3
    assert kinds['Transpose'] == pools
    kernels = Counter(
        tuple(node.input(1).get_shape())[-2:]
        for node in nodes
        if node.get_type_name() == 'GroupConvolution'
    )
    assert len(kernels) > 1
    assert kernels == {(wide, tall): number for (tall, wide), number in kernels.items()}


@torch.no_grad()
def test_slide(tmp_path: Path) -> None:
    """The graph takes crops; the loop outside gives what mmseg gives."""
    test = dict(mode='slide', crop_size=(48, 64), stride=(32, 40))
    model = segmentor('resnet', test=test, type='FCNHead', num_convs=1, in_channels=32, in_index=3)
    program = program_of(model)
    assert program.settings == {'mode': 'slide', 'crop_size': [48, 64], 'stride': [32, 40]}
    write(program, tmp_path / 'crops.pt2', 'torch', (2, 3, 48, 64))
    file = open_program(tmp_path / 'crops.pt2')
    for shape in ((1, 3, 97, 131), (2, 3, 48, 70)):
        image = torch.randn(shape)
        metas = [dict(ori_shape=shape[2:], img_shape=shape[2:])] * shape[0]
        found = slide(lambda crop: run(file, crop), image, (48, 64), (32, 40))
        check_logits(found, model.slide_inference(image, metas))
