// Kernels and launcher of the weight gradient of the fused operator: sums per chunk, the chunks in
// order, then the small kernels' share of every unit. No atomics, so results repeat bit for bit.
#include "dispatch.cuh"
#include "shift_wise_grad_weight.cuh"

namespace mmsw {
namespace {

constexpr int kMostThreads = 20 * kWarp;  // see plan_grad
constexpr int kElementThreads = 256;

extern __shared__ __align__(16) unsigned char shared_bytes[];

template <typename T, int kSide>
__global__ void __launch_bounds__(kMostThreads, 1) grad_weight_kernel(
    ConvSizes sizes, GradPlan plan, const T* __restrict__ grad_h, const T* __restrict__ grad_v,
    const T* __restrict__ grad_i, const T* __restrict__ x,
    typename Accumulator<T>::type* workspace) {
  const int parts = plan.parts();
  const int64_t per_chunk = static_cast<int64_t>(sizes.channels) * parts;
  for (int64_t work = blockIdx.x; work < per_chunk * plan.chunks; work += gridDim.x) {
    grad_weight_chunk<T, kSide>(
        DeviceBlock(), static_cast<int>(work % parts),
        static_cast<int>(work / parts % sizes.channels), static_cast<int>(work / per_chunk), sizes,
        plan, grad_h, grad_v, grad_i, x, workspace,
        reinterpret_cast<typename Accumulator<T>::type*>(shared_bytes));
  }
}

template <typename Acc>
__global__ void __launch_bounds__(kElementThreads, 2) reduce_chunks_kernel(
    int64_t count, int chunks, Acc* workspace) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    reduce_chunks(i, count, chunks, workspace);
  }
}

template <typename T>
__global__ void __launch_bounds__(kElementThreads, 2) gather_grad_kernel(
    ConvSizes sizes, const int* __restrict__ shift_hv, const int64_t* __restrict__ identity_index,
    const typename Accumulator<T>::type* __restrict__ unit_grads, T* grad_weight) {
  const int64_t count = static_cast<int64_t>(sizes.channels) * sizes.groups * sizes.taps();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    gather_grad<T>(i, sizes, shift_hv, identity_index, unit_grads, grad_weight);
  }
}

int64_t unit_values(const ConvSizes& sizes) {
  return static_cast<int64_t>(sizes.channels) * sizes.units() * sizes.taps();
}

unsigned element_blocks(int64_t count) {
  return grid_size((count + kElementThreads - 1) / kElementThreads);
}

}  // namespace

size_t workspace_grad_weight(const ConvSizes& sizes, Dtype dtype) {
  const int bytes = accumulator_bytes(dtype);
  return unit_values(sizes) * plan_grad(sizes, whole_slots(sizes, dtype), bytes).chunks * bytes;
}

cudaError_t launch_conv_grad_weight(
    const ConvSizes& sizes, Dtype dtype, const void* grad_h, const void* grad_v,
    const void* grad_i, const void* x, const int* shift_hv, const int64_t* identity_index,
    void* grad_weight, void* workspace, cudaStream_t stream) {
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = typename Accumulator<T>::type;
    const GradPlan plan = plan_grad(sizes, whole_slots(sizes, dtype), sizeof(Acc));
    Acc* sums = static_cast<Acc*>(workspace);
    const int64_t blocks = static_cast<int64_t>(plan.parts()) * sizes.channels * plan.chunks;
    cudaError_t error = with_side<T>(sizes.side, [&](auto side) {
      grad_weight_kernel<T, side.value>
          <<<grid_size(blocks), plan.threads(), plan.shared_values * sizeof(Acc), stream>>>(
              sizes, plan, static_cast<const T*>(grad_h), static_cast<const T*>(grad_v),
              static_cast<const T*>(grad_i), static_cast<const T*>(x), sums);
      return cudaGetLastError();
    });
    if (error != cudaSuccess) return error;
    if (plan.chunks > 1) {
      const int64_t count = unit_values(sizes);
      reduce_chunks_kernel<Acc><<<element_blocks(count), kElementThreads, 0, stream>>>(
          count, plan.chunks, sums);
      error = cudaGetLastError();
      if (error != cudaSuccess) return error;
    }
    const int64_t count = static_cast<int64_t>(sizes.channels) * sizes.groups * sizes.taps();
    gather_grad_kernel<T><<<element_blocks(count), kElementThreads, 0, stream>>>(
        sizes, shift_hv, identity_index, sums, static_cast<T*>(grad_weight));
    return cudaGetLastError();
  });
}

}  // namespace mmsw
