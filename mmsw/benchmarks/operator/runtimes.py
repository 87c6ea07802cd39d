"""The same cross form in onnxruntime and OpenVINO: depthwise convolutions, three, or two folded.

Each runs one ONNX model per shape, see :mod:`mmsw.benchmarks.onnx_runtimes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mmsw.ops import cross_conv2d
from mmsw.ops.assemble import assemble

from ..onnx_runtimes import RUNTIMES, Infer, missing
from .cases import Case, Tensors
from .job import FOLDED, FORWARD, RUNTIME, Job

_OPSET = 17
Kernel = tuple[Tensor, bool]  # taps [C, taps, N], and whether they run along the columns


def jobs(case: Case, folded_arms: tuple[Tensor, Tensor]) -> Iterator[Job | str]:
    """A row per runtime and form, or why it is not there."""
    wide, tall, small = assemble(case.weight, case.pattern.tables())
    for name, (start, packages) in RUNTIMES.items():
        if why := missing(packages):
            yield f'{name}: {why}'
            continue
        yield Job(
            name, RUNTIME, FORWARD, case,
            _runner(start, case.x, [(wide, True), (tall, False), (small, False)], folded=False),
            (case.x, case.weight), case.definition, case.batch * case.shape.multiply_adds(),
        )  # fmt: skip
        yield Job(
            f'{name} folded', FOLDED, FORWARD, case,
            _runner(start, case.x, [(folded_arms[0], True), (folded_arms[1], False)], folded=True),
            (case.x, *folded_arms),
            lambda x, wide, tall, some: (cross_conv2d(x, wide, tall, backend='torch'),),
            case.batch * case.shape.folded_multiply_adds(),
        )  # fmt: skip


def _runner(
    start: Callable[[bytes, Tensor, Tensors], Infer],
    x: Tensor,
    kernels: Sequence[Kernel],
    folded: bool,
) -> Callable[..., Tensors]:
    outputs = tuple(torch.empty_like(x) for _ in (kernels[:1] if folded else kernels))
    infer = start(_model(x, kernels, folded), x, outputs)

    def run(*inputs: Tensor) -> Tensors:
        if inputs[0].data_ptr() != x.data_ptr():
            raise ValueError('the runtime is bound to another map')
        infer()
        return outputs

    return run


def _model(x: Tensor, kernels: Sequence[Kernel], folded: bool) -> bytes:
    """An ONNX model of depthwise convolutions, each an output, or added up to one."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, weights, names = [], [], []
    for index, (taps, wide) in enumerate(kernels):
        kernel = (taps.mT if wide else taps).unsqueeze(1).contiguous()
        rows, columns = (side // 2 for side in kernel.shape[2:])
        weights.append(numpy_helper.from_array(kernel.numpy(), f'w{index}'))
        names.append(f'y{index}')
        nodes.append(
            helper.make_node(
                'Conv', ['x', f'w{index}'], [names[-1]],
                group=x.shape[1], pads=[rows, columns, rows, columns],
            )
        )  # fmt: skip
    if folded:
        nodes.append(helper.make_node('Add', names, ['y']))
        names = ['y']
    value = (TensorProto.FLOAT, list(x.shape))
    graph = helper.make_graph(
        nodes, 'cross', [helper.make_tensor_value_info('x', *value)],
        [helper.make_tensor_value_info(name, *value) for name in names], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', _OPSET)])
    model.ir_version = 8  # of that opset: what older runtimes read
    checker.check_model(model)
    return model.SerializeToString()
