"""int8: which layers, whose numbers stay zero, what of a file is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('onnxruntime', reason='onnx: absent; onnxruntime quantises')
onnx = pytest.importorskip('onnx', reason='onnx: absent; it reads the models')

from onnx import helper, numpy_helper  # noqa: E402
from small_onnx import METADATA, model_of, run, small_network  # noqa: E402

from mmsw.deploy.export.int8_layers import layers_of  # noqa: E402
from mmsw.deploy.export.metadata import KEY, ExportMetadata  # noqa: E402
from mmsw.deploy.export.quantization import quantize  # noqa: E402
from mmsw.errors import DataError, UsageError  # noqa: E402

IN_INT8 = {'middle.weight', 'expand_weight_taps', 'reduce_weight_taps'}


def images(number: int = 6, batch: int = 1) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    return [generator.standard_normal((batch, 3, 9, 11)).astype(np.float32) for _ in range(number)]


@pytest.fixture
def float_file(tmp_path: Path) -> Path:
    path = tmp_path / 'float.onnx'
    onnx.save(small_network(np.random.default_rng(3)), path)
    return path


def dequantised(path: Path) -> dict[str, np.ndarray]:
    """The int8 weights of a file as the numbers that they stand for, by the names of before."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == 'DequantizeLinear' and node.input[0] in constants:
            values, scale, zero = (constants[name] for name in node.input)
            if values.dtype == np.int8:
                shape = [-1] + [1] * (values.ndim - 1)
                number = values.astype(int) - zero.astype(int).reshape(shape)
                found[node.input[0].removesuffix('_quantized')] = number * scale.reshape(shape)
    return found


@pytest.mark.parametrize('weight_bits', [7, 8])
def test_results_stay_close(float_file: Path, tmp_path: Path, weight_bits: int) -> None:
    out = tmp_path / 'int8.onnx'
    report = quantize(float_file, out, images(), weight_bits=weight_bits)
    assert set(report.quantized) == IN_INT8
    assert report.kept == {'stem.weight': 'first', 'arm': 'depthwise', 'head.weight': 'last'}
    assert report.images == 6
    assert report.bytes_before == float_file.stat().st_size
    assert report.bytes_after == out.stat().st_size
    for image in [*images(2), *images(1, batch=3), images(1)[0][:, :, :, ::-1][:, :, :8, :10]]:
        (expected,), (found,) = run(float_file, image=image), run(out, image=image)
        assert found.shape == expected.shape
        assert 0 < np.linalg.norm(found - expected) < 0.08 * np.linalg.norm(expected)


def test_what_is_zero_stays_zero(float_file: Path, tmp_path: Path) -> None:
    out = tmp_path / 'int8.onnx'
    quantize(float_file, out, images())
    constants = onnx.load(float_file).graph.initializer
    before = {item.name: numpy_helper.to_array(item) for item in constants}
    found = dequantised(out)
    assert set(found) == IN_INT8
    for name, values in found.items():
        weight = before[name.removesuffix('_taps')].reshape(values.shape)
        zeros = weight == 0
        assert 0.3 < zeros.mean() < 0.7
        assert not values[zeros].any()
        # 7 bits of each filter: half a step of its largest weight, 64 steps away from zero
        largest = abs(weight).reshape(len(weight), -1).max(1)
        steps = np.broadcast_to(largest.reshape(-1, *[1] * (weight.ndim - 1)) / 64, weight.shape)
        assert (abs(values - weight) <= 0.51 * steps).all()


def test_the_file_tells_that_it_is_int8(float_file: Path) -> None:
    quantize(float_file, float_file, images(1))  # in place
    (entry,) = onnx.load(float_file).metadata_props
    assert entry.key == KEY
    found = ExportMetadata.from_text(entry.value, float_file)
    assert found.precision == 'int8'
    assert (found.classes, found.palette, found.image) == (
        METADATA.classes,
        METADATA.palette,
        METADATA.image,
    )


def test_operators_are_of_the_standard_domain(float_file: Path) -> None:
    quantize(float_file, float_file, images(1))
    model = onnx.load(float_file)
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'}
    onnx.checker.check_model(model, full_check=True)


def test_named_layers_stay(float_file: Path, tmp_path: Path) -> None:
    report = quantize(float_file, tmp_path / 'int8.onnx', images(1), keep_float='(expand|reduce)_')
    assert set(report.quantized) == {'middle.weight'}
    assert report.kept['expand_weight_taps'] == report.kept['reduce_weight_taps'] == 'named'


def test_last_layers_of_a_detector() -> None:
    """Scores and boxes only choose what goes on: the layers that give them are last ones, too."""
    node = helper.make_node
    layers = {'stem': 3, 'trunk': 4, 'scores': 4, 'boxes': 4}
    nodes = [
        node('Conv', ['image', 'stem'], ['a']),
        node('Conv', ['a', 'trunk'], ['b']),
        node('Conv', ['b', 'scores'], ['s']),
        node('Conv', ['b', 'boxes'], ['d']),
        node('Reshape', ['s', 'flat'], ['ranks']),
        node('TopK', ['ranks', 'two'], ['best', 'places']),
        node('Reshape', ['d', 'columns'], ['all']),
        node('Gather', ['all', 'places'], ['rois']),
        node('RoiAlign', ['b', 'rois', 'sample'], ['crops'], output_height=1, output_width=1),
        node('Flatten', ['crops'], ['vectors']),
        node('Gemm', ['vectors', 'fc'], ['shared']),
        node('Gemm', ['shared', 'fc_cls'], ['logits']),
    ]
    constants = {
        **{name: np.ones((4, width, 1, 1), np.float32) for name, width in layers.items()},
        'fc': np.ones((4, 4), np.float32),
        'fc_cls': np.ones((4, 2), np.float32),
        'flat': np.array([-1]),
        'two': np.array([2]),
        'columns': np.array([-1, 4]),
        'sample': np.array([0, 0]),
    }
    model = model_of(nodes, constants, {'image': [1, 3, 4, 4]}, {'logits': [2, 2]})
    assert {layer.weight: layer.reason for layer in layers_of(model)} == {
        'stem': 'first',
        'trunk': '',
        'scores': 'last',
        'boxes': 'last',
        'fc': '',
        'fc_cls': 'last',
    }


def test_channel_attention_stays() -> None:
    node = helper.make_node
    names = ('stem', 'stages.0.squeeze_weight', 'stages.0.excite_weight', 'after', 'last')
    flow = ['image', *'abcd', 'logits']
    nodes = [node('Gemm', [flow[i], name], [flow[i + 1]]) for i, name in enumerate(names)]
    constants = dict.fromkeys(names, np.ones((3, 3), np.float32))
    model = model_of(nodes, constants, {'image': [1, 3]}, {'logits': [1, 3]})
    assert [layer.reason for layer in layers_of(model)] == [
        'first', 'channel attention', 'channel attention', '', 'last'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(keep_float='head['), r"keep_float='head\[' is no regular expression"),
        (dict(keep_float='decoder'), "keep_float='decoder' is found in the name of no weight"),
        (dict(weight_bits=4), 'weight_bits must be 7 or 8, got 4'),
        (dict(images=[]), 'int8 needs images to take the ranges of values from, got none'),
    ],
)
def test_bad_options_leave_nothing(
    float_file: Path, tmp_path: Path, options: dict, message: str
) -> None:
    out = tmp_path / 'int8.onnx'
    with pytest.raises(UsageError, match=message):
        quantize(float_file, out, **{'images': images(1), **options})
    assert [path.name for path in tmp_path.iterdir()] == [float_file.name]


def test_files_that_are_none(float_file: Path, tmp_path: Path) -> None:
    quantize(float_file, tmp_path / 'int8.onnx', images(1))
    with pytest.raises(DataError, match='is in int8 already'):
        quantize(tmp_path / 'int8.onnx', tmp_path / 'twice.onnx', images(1))
    cut = tmp_path / 'cut.onnx'
    cut.write_bytes(float_file.read_bytes()[:-500])
    with pytest.raises(DataError, match=r'cut\.onnx cannot be read as an ONNX file'):
        quantize(cut, tmp_path / 'twice.onnx', images(1))
    with pytest.raises(DataError, match=r'takes no image \[1, 4, 9, 11\]'):
        quantize(float_file, tmp_path / 'twice.onnx', [np.ones((1, 4, 9, 11), np.float32)])
    assert not (tmp_path / 'twice.onnx').exists()
