// Launchers of the CUDA kernels: raw device pointers, sizes and a stream; free of torch.
//
// Every pointer is of the device that is current; maps are contiguous. A launcher returns the error
// of its launches (cudaGetLastError) and never waits for the stream. Callers ask `limit_*` first.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "shift_wise.cuh"

namespace mmsw {

enum class Dtype { kFloat32, kFloat16, kBFloat16, kFloat64 };

// Why these sizes cannot run, or nullptr.
const char* limit_conv(const ConvSizes& sizes, Dtype dtype);
const char* limit_shift_add(const ConvSizes& sizes);

// Bytes of device memory that a call needs for itself.
size_t workspace_conv(const ConvSizes& sizes, Dtype dtype);
size_t workspace_grad_weight(const ConvSizes& sizes, Dtype dtype);

// Maps are [B, C, H, W], weights [C * nk, N, N].
cudaError_t launch_conv(
    const ConvSizes& sizes, Dtype dtype, const void* x, const void* weight, const int* shift_hv,
    const int64_t* identity_index, void* out_h, void* out_v, void* out_i, void* workspace,
    cudaStream_t stream);

cudaError_t launch_conv_grad_input(
    const ConvSizes& sizes, Dtype dtype, const void* grad_h, const void* grad_v,
    const void* grad_i, const void* weight, const int* shift_hv, const int64_t* identity_index,
    void* grad_x, void* workspace, cudaStream_t stream);

cudaError_t launch_conv_grad_weight(
    const ConvSizes& sizes, Dtype dtype, const void* grad_h, const void* grad_v,
    const void* grad_i, const void* x, const int* shift_hv, const int64_t* identity_index,
    void* grad_weight, void* workspace, cudaStream_t stream);

// `conv_out` and its gradient are [B, C * nk, H + 2e, W + 2e].
cudaError_t launch_shift_add(
    const ConvSizes& sizes, Dtype dtype, const void* conv_out, const int* shift_hv,
    const int64_t* identity_index, void* out_h, void* out_v, void* out_i, cudaStream_t stream);

cudaError_t launch_shift_add_grad(
    const ConvSizes& sizes, Dtype dtype, const void* grad_h, const void* grad_v,
    const void* grad_i, const int* shift_hv, const int64_t* identity_index, void* grad_conv_out,
    cudaStream_t stream);

}  // namespace mmsw
