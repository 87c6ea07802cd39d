// Kernels and launchers of shift and add alone, and of its gradient.
#include "shift_add.cuh"

#include "dispatch.cuh"

namespace mmsw {
namespace {

constexpr int kStripThreads = 256;

extern __shared__ int shared_pattern[];

template <typename T>
__global__ void __launch_bounds__(kStripThreads) shift_add_kernel(
    ConvSizes sizes, int strips, const T* __restrict__ conv_out, const int* __restrict__ shift_hv,
    const int64_t* __restrict__ identity_index, T* out_h, T* out_v, T* out_i) {
  for (int64_t work = blockIdx.x; work < sizes.planes() * strips; work += gridDim.x) {
    shift_add_strip<T>(
        DeviceBlock(), work / strips, static_cast<int>(work % strips), sizes, conv_out, shift_hv,
        identity_index, out_h, out_v, out_i, shared_pattern);
  }
}

template <typename T>
__global__ void __launch_bounds__(kStripThreads) shift_add_grad_kernel(
    ConvSizes sizes, int strips, const T* __restrict__ grad_h, const T* __restrict__ grad_v,
    const T* __restrict__ grad_i, const int* __restrict__ shift_hv,
    const int64_t* __restrict__ identity_index, T* grad_conv_out) {
  const int64_t work_count = sizes.planes() * sizes.groups * strips;
  for (int64_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    shift_add_grad_strip<T>(
        DeviceBlock(), work / strips, static_cast<int>(work % strips), sizes, grad_h, grad_v,
        grad_i, shift_hv, identity_index, grad_conv_out, shared_pattern);
  }
}

int64_t conv_map_size(const ConvSizes& sizes) {
  const int64_t border = 2 * conv_margin(sizes.side);
  return (sizes.height + border) * (sizes.width + border);
}

int strips_of(int64_t positions) {
  return static_cast<int>((positions + kStripThreads - 1) / kStripThreads);
}

size_t pattern_bytes(const ConvSizes& sizes) {
  return (2 * static_cast<size_t>(sizes.groups) + 1) * sizes.reps * sizeof(int);
}

}  // namespace

const char* limit_shift_add(const ConvSizes& sizes) {
  if (conv_map_size(sizes) >= (int64_t{1} << 31)) {
    return "a map must hold fewer than 2**31 positions";
  }
  if (pattern_bytes(sizes) > kSharedBytes) {
    return "num_reps * num_groups is too large for shared memory";
  }
  return nullptr;
}

cudaError_t launch_shift_add(
    const ConvSizes& sizes, Dtype dtype, const void* conv_out, const int* shift_hv,
    const int64_t* identity_index, void* out_h, void* out_v, void* out_i, cudaStream_t stream) {
  if (sizes.planes() == 0) return cudaSuccess;
  const int strips = strips_of(sizes.plane_size());
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    shift_add_kernel<T>
        <<<grid_size(sizes.planes() * strips), kStripThreads, pattern_bytes(sizes), stream>>>(
            sizes, strips, static_cast<const T*>(conv_out), shift_hv, identity_index,
            static_cast<T*>(out_h), static_cast<T*>(out_v), static_cast<T*>(out_i));
    return cudaGetLastError();
  });
}

cudaError_t launch_shift_add_grad(
    const ConvSizes& sizes, Dtype dtype, const void* grad_h, const void* grad_v,
    const void* grad_i, const int* shift_hv, const int64_t* identity_index, void* grad_conv_out,
    cudaStream_t stream) {
  if (sizes.planes() == 0) return cudaSuccess;
  const int strips = strips_of(conv_map_size(sizes));
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    shift_add_grad_kernel<T>
        <<<grid_size(sizes.planes() * sizes.groups * strips), kStripThreads, pattern_bytes(sizes),
           stream>>>(
            sizes, strips, static_cast<const T*>(grad_h), static_cast<const T*>(grad_v),
            static_cast<const T*>(grad_i), shift_hv, identity_index,
            static_cast<T*>(grad_conv_out));
    return cudaGetLastError();
  });
}

}  // namespace mmsw
