"""Shares of the time by kinds of work."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from mmsw.benchmarks.model.kinds import (
    ACTIVATION,
    COPIES,
    ELEMENTWISE,
    NORMS,
    OPERATOR,
    OTHER,
    PRODUCTS,
    kind_of,
    shares_of,
)

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.mark.parametrize(
    ('name', 'shapes', 'kind'),
    [
        ('aten::addmm', [], PRODUCTS),
        ('aten::baddbmm', [], PRODUCTS),
        ('aten::baddbmm_', [], PRODUCTS),
        ('aten::_scaled_dot_product_flash_attention_for_cpu', [], PRODUCTS),
        ('aten::mkldnn_convolution', [[1, 8, 9, 9], [4, 8, 3, 3], [4]], PRODUCTS),
        ('aten::mkldnn_convolution', [[1, 8, 9, 9], [8, 1, 7, 7], [8]], OPERATOR),
        ('aten::mkldnn_convolution', [[1, 1, 9, 9], [8, 1, 7, 7], [8]], OPERATOR),
        ('aten::convolution_backward', [[1, 8, 9, 9], [1, 8, 9, 9], [8, 1, 7, 7]], OPERATOR),
        ('aten::convolution_backward', [[1, 4, 9, 9], [1, 1, 9, 9], [4, 1, 9, 9]], OPERATOR),
        ('aten::convolution_backward', [[1, 4, 9, 9], [1, 8, 9, 9], [4, 8, 3, 3]], PRODUCTS),
        ('mmsw_cpp::shift_wise_conv2d_grad_input', [], OPERATOR),
        ('mmsw::cross_conv2d', [], OPERATOR),
        ('mmsw_cpp::bias_gelu', [], ACTIVATION),
        ('mmsw_cpp::channel_norm_grad', [], NORMS),
        ('aten::_softmax_backward_data', [], ACTIVATION),
        ('aten::native_layer_norm_backward', [], NORMS),
        ('aten::cudnn_batch_norm', [], NORMS),
        ('aten::linalg_vector_norm', [], NORMS),
        ('mmsw_cpp::row_products', [], NORMS),
        ('mmsw_cpp::row_sums', [], NORMS),
        ('aten::add_', [], ELEMENTWISE),
        ('aten::sum', [], ELEMENTWISE),
        ('aten::expand', [], OTHER),
        ('aten::copy_', [], COPIES),
        ('aten::index_select', [], COPIES),
        ('aten::cat', [], COPIES),
        ('aten::max_pool2d_with_indices', [], OTHER),
        ('autograd::engine::evaluate_function: MulBackward0', [], OTHER),
    ],
)
def test_kinds_of_work_by_operator_name(name, shapes, kind):
    assert kind_of(name, shapes) == kind


def test_shares_on_a_gpu_are_of_the_kernels_that_operators_start():
    def event(key: str, cpu: float, gpu: float, where: DeviceType = DeviceType.CPU):
        return SimpleNamespace(
            key=key, device_type=where, input_shapes=[],
            self_cpu_time_total=cpu, self_device_time_total=gpu,
        )  # fmt: skip

    events = [
        event('aten::mm', 2.0, 30.0),
        event('aten::gelu', 1.0, 10.0),
        event('cudaLaunchKernel', 5.0, 0.0),
        event('ampere_sgemm_128x64_tn', 0.0, 30.0, DeviceType.CUDA),
    ]
    found = shares_of(events, CUDA)
    assert (found[PRODUCTS], found[ACTIVATION], found[OTHER]) == (0.75, 0.25, 0.0)
    found = shares_of(events, CPU)
    assert (found[PRODUCTS], found[ACTIVATION], found[OTHER]) == (0.25, 0.125, 0.625)
    assert shares_of([], CPU) == {}
