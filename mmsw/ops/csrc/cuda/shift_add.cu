// Kernels and launchers of shift and add alone, and of its gradient.
#include "shift_add.cuh"

#include "dispatch.cuh"
#include "elements.cuh"

namespace mmsw {
namespace {

constexpr int kStripThreads = 256;

extern __shared__ int shared_pattern[];

template <typename T>
__global__ void __launch_bounds__(kStripThreads, 2)
    shift_add_kernel(const __grid_constant__ ShiftAddTask<T> task) {
  const int64_t all = task.map.planes() * task.strips;
  for (int64_t work = blockIdx.x; work < all; work += gridDim.x) {
    shift_add_strip<T>(DeviceTeam(), work, task, shared_pattern);
  }
}

template <typename T>
__global__ void __launch_bounds__(kStripThreads, 2)
    shift_add_grad_kernel(const __grid_constant__ ShiftAddTask<T> task) {
  const int64_t all = task.map.planes() * task.pattern.sizes.groups * task.strips;
  for (int64_t work = blockIdx.x; work < all; work += gridDim.x) {
    shift_add_grad_strip<T>(DeviceTeam(), work, task, shared_pattern);
  }
}

int strips_of(int64_t positions) {
  return static_cast<int>((positions + kStripThreads - 1) / kStripThreads);
}

size_t pattern_bytes(const PatternSizes& sizes) { return shift_add_scratch(sizes) * sizeof(int); }

}  // namespace

const char* limit_shift_add(const MapSizes& map, const PatternSizes& sizes) {
  if (ShiftAddTask<float>{map, {sizes, 0, nullptr, nullptr}, 0, {}, {}}.conv_size() >=
      (int64_t{1} << 31)) {
    return "a map must hold fewer than 2**31 positions";
  }
  if (pattern_bytes(sizes) > kSharedBytes) {
    return "num_reps * num_groups is too large for shared memory";
  }
  return nullptr;
}

cudaError_t launch_shift_add(const MapSizes& map, Dtype dtype, const void* conv_out,
                             const Pattern& pattern, void* const outputs[3], cudaStream_t stream) {
  if (map.empty()) return cudaSuccess;
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ShiftAddTask<T> task = {map, pattern, strips_of(map.plane_size()), {}, {}};
    task.input[0] = static_cast<const T*>(conv_out);
    for (int i = 0; i < 3; ++i) task.output[i] = static_cast<T*>(outputs[i]);
    shift_add_kernel<T><<<grid_size(map.planes() * task.strips), kStripThreads,
                          pattern_bytes(pattern.sizes), stream>>>(task);
    return cudaGetLastError();
  });
}

cudaError_t launch_shift_add_grad(const MapSizes& map, Dtype dtype, const void* const grads[3],
                                  const Pattern& pattern, void* grad_conv_out,
                                  cudaStream_t stream) {
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ShiftAddTask<T> task = {map, pattern, 0, {}, {}};
    task.strips = strips_of(task.conv_size());
    for (int i = 0; i < 3; ++i) task.input[i] = static_cast<const T*>(grads[i]);
    task.output[0] = static_cast<T*>(grad_conv_out);
    // Of a map without rows or columns the border is left, and its gradient is zero.
    const int64_t work = map.planes() * pattern.sizes.groups * task.strips;
    if (work == 0) return cudaSuccess;
    shift_add_grad_kernel<T>
        <<<grid_size(work), kStripThreads, pattern_bytes(pattern.sizes), stream>>>(task);
    return cudaGetLastError();
  });
}

}  // namespace mmsw
