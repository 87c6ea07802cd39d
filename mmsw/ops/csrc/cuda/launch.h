// Launchers of the CUDA kernels: raw device pointers, sizes and a stream; free of torch.
//
// Every pointer is of the device that is current; maps are contiguous, and outputs begin at a
// multiple of two values. A launcher returns the error of its launches (cudaGetLastError) and never
// waits for the stream; where there is nothing to do, it launches nothing. Callers ask `limit_*`
// first.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "assemble.cuh"

namespace mmsw {

enum class Dtype { kFloat32, kFloat16, kBFloat16, kFloat64 };

// A depthwise kernel [C, 1, height, width] and the wanted side N of the blocks it is cut into.
struct DepthwiseSizes {
  int height, width, side;
};

// Why these sizes cannot run, or nullptr.
const char* limit_conv(const MapSizes& map, const PatternSizes& sizes, Dtype dtype);
const char* limit_cross(const MapSizes& map, const Cross& cross, Dtype dtype);
const char* limit_depthwise(const MapSizes& map, const DepthwiseSizes& kernel, Dtype dtype);
const char* limit_shift_add(const MapSizes& map, const PatternSizes& sizes);

// Bytes of device memory that a call needs for itself.
size_t workspace_conv(const MapSizes& map, const Cross& cross, Dtype dtype);
size_t workspace_grad_weight(const MapSizes& map, const PatternSizes& sizes, Dtype dtype);
size_t workspace_depthwise(const MapSizes& map, const DepthwiseSizes& kernel, Dtype dtype);
size_t workspace_depthwise_grad(const MapSizes& map, const DepthwiseSizes& kernel, Dtype dtype);

// Maps are [B, C, H, W], weights [C * nk, N, N], three maps horizontal, vertical, identity.
cudaError_t launch_conv(const MapSizes& map, Dtype dtype, const void* x, const void* weight,
                        const Pattern& pattern, void* const outputs[3], void* workspace,
                        cudaStream_t stream);

cudaError_t launch_grad_input(const MapSizes& map, Dtype dtype, const void* const grads[3],
                              const void* weight, const Pattern& pattern, void* grad_x,
                              void* workspace, cudaStream_t stream);

// `mask` is [C * nk] or nullptr; where it is off, the gradient is zero.
cudaError_t launch_grad_weight(const MapSizes& map, Dtype dtype, const void* const grads[3],
                               const void* x, const bool* mask, const Pattern& pattern,
                               void* grad_weight, void* workspace, cudaStream_t stream);

// Arms [C, taps, N] with the sizes of `cross_of_arms`; `bias` is [C] or nullptr.
cudaError_t launch_cross(const MapSizes& map, Dtype dtype, const void* x, const Cross& cross,
                         const void* wide, const void* tall, const void* bias, void* out,
                         void* workspace, cudaStream_t stream);

// "Same" padding; `flipped` runs the turned kernel, for the gradient of the map. `bias` is [C] or
// nullptr.
cudaError_t launch_depthwise(const MapSizes& map, Dtype dtype, const void* x, const void* weight,
                             const void* bias, const DepthwiseSizes& kernel, bool flipped,
                             void* out, void* workspace, cudaStream_t stream);

cudaError_t launch_depthwise_grad(const MapSizes& map, Dtype dtype, const void* grad, const void* x,
                                  const DepthwiseSizes& kernel, void* grad_weight, void* workspace,
                                  cudaStream_t stream);

// `conv_out` and its gradient are [B, C * nk, H + 2 * margin, W + 2 * margin].
cudaError_t launch_shift_add(const MapSizes& map, Dtype dtype, const void* conv_out,
                             const Pattern& pattern, void* const outputs[3], cudaStream_t stream);

cudaError_t launch_shift_add_grad(const MapSizes& map, Dtype dtype, const void* const grads[3],
                                  const Pattern& pattern, void* grad_conv_out, cudaStream_t stream);

}  // namespace mmsw
