"""ONNX models in the form that OpenVINO is faster with give what they gave."""

from __future__ import annotations

import numpy as np
import pytest


def test_a_norm_over_channels_is_written_out_beside_other_names() -> None:
    onnx = pytest.importorskip('onnx', reason='onnx: onnx is not installed')
    runtime = pytest.importorskip('onnxruntime', reason='onnx: onnxruntime is not installed')
    from onnx import TensorProto, helper, numpy_helper

    from mmsw.deploy.export.writers.openvino_forms import without_transpositions

    random = np.random.default_rng(0)
    weights = {
        'weight': random.normal(size=6),
        'bias': random.normal(size=6),
        'y_scale': random.normal(size=()),  # as int8 calls the step of a map
    }
    nodes = [
        helper.make_node('Transpose', ['x'], ['t'], perm=[0, 2, 3, 1]),
        helper.make_node('LayerNormalization', ['t', 'weight', 'bias'], ['n'], epsilon=1e-6),
        helper.make_node('Transpose', ['n'], ['y'], perm=[0, 3, 1, 2]),
        helper.make_node('Mul', ['y', 'y_scale'], ['out']),
    ]
    kind = (TensorProto.FLOAT, [2, 6, 5, 7])
    graph = helper.make_graph(
        nodes,
        'norm',
        [helper.make_tensor_value_info('x', *kind)],
        [helper.make_tensor_value_info('out', *kind)],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)])
    model.ir_version = 9

    def run() -> np.ndarray:
        onnx.checker.check_model(model)
        session = runtime.InferenceSession(
            model.SerializeToString(), providers=['CPUExecutionProvider']
        )
        return session.run(None, {'x': x})[0]

    x = random.normal(size=kind[1]).astype(np.float32)
    expected = run()
    without_transpositions(model)
    assert 'Transpose' not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(run(), expected, atol=2e-6)
