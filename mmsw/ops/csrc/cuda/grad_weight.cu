// Kernels and launcher of the weight gradient of the fused operator: sums per chunk, the chunks in
// order, then the small kernels' share of every block. No atomics, so results repeat bit for bit.
#include "grad_weight.cuh"

#include "dispatch.cuh"

namespace mmsw {
namespace {

__global__ void __launch_bounds__(kElementThreads, 2)
    mark_active_kernel(Pattern pattern, Cross cross, const bool* __restrict__ mask,
                       uint32_t* active) {
  for_each(static_cast<int64_t>(pattern.channels) * cross.words(), [&](int64_t i) {
    active[i] = active_word(static_cast<int>(i / cross.words()),
                            static_cast<int>(i % cross.words()), pattern, cross, mask);
  });
}

template <typename T>
__global__ void __launch_bounds__(kElementThreads, 2)
    gather_grad_kernel(Pattern pattern, const bool* __restrict__ mask,
                       const typename Accumulator<T>::type* __restrict__ block_grads,
                       T* grad_weight) {
  const PatternSizes& sizes = pattern.sizes;
  for_each(static_cast<int64_t>(pattern.channels) * sizes.groups * sizes.block_size(),
           [&](int64_t i) { grad_weight[i] = gather_grad<T>(i, pattern, mask, block_grads); });
}

int64_t block_values(const PatternSizes& sizes, int channels) {
  return static_cast<int64_t>(channels) * (2 * sizes.groups + 1) * sizes.block_size();
}

}  // namespace

const char* limit_conv(const MapSizes& map, const PatternSizes& sizes, Dtype dtype) {
  const int bytes = accumulator_bytes(dtype);
  if (pattern_scratch(sizes) * static_cast<int64_t>(sizeof(int)) > kSharedBytes) {
    return "num_reps * num_groups is too large for shared memory";
  }
  if (plan_grad(map, sizes, warp_slots(sizes.side, dtype), bytes).warps == 0) {
    return "small_kernel is too large for shared memory";
  }
  return limit_cross(map, cross_of_pattern(sizes, false), dtype);
}

size_t workspace_grad_weight(const MapSizes& map, const PatternSizes& sizes, Dtype dtype) {
  const int bytes = accumulator_bytes(dtype);
  const GradPlan plan = plan_grad(map, sizes, warp_slots(sizes.side, dtype), bytes);
  return block_values(sizes, map.channels) * plan.chunks * bytes +
         sizeof(uint32_t) * map.channels * cross_of_pattern(sizes, false).words();
}

cudaError_t launch_grad_weight(const MapSizes& map, Dtype dtype, const void* const grads[3],
                               const void* x, const bool* mask, const Pattern& pattern,
                               void* grad_weight, void* workspace, cudaStream_t stream) {
  if (map.channels == 0) return cudaSuccess;  // an empty map still has a gradient: zeros
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = typename Accumulator<T>::type;
    const PatternSizes& sizes = pattern.sizes;
    GradTask<T> task = {};
    task.map = map;
    task.sizes = sizes;
    task.cross = cross_of_pattern(sizes, false);
    task.plan = plan_grad(map, sizes, warp_slots(sizes.side, dtype), sizeof(Acc));
    for (int i = 0; i < 3; ++i) task.grads[i] = static_cast<const T*>(grads[i]);
    task.x = static_cast<const T*>(x);
    task.workspace = static_cast<Acc*>(workspace);
    const int64_t values = block_values(sizes, map.channels);
    if (mask != nullptr) {
      auto* active = reinterpret_cast<uint32_t*>(task.workspace + values * task.plan.chunks);
      mark_active_kernel<<<element_blocks(static_cast<int64_t>(map.channels) * task.cross.words()),
                           kElementThreads, 0, stream>>>(pattern, task.cross, mask, active);
      task.active = active;
    }
    with_side<T>(sizes.side, task.plan.tiles.tile, [&](auto side, auto tile) {
      grad_weight_kernel<T, side.value, tile.value>
          <<<grid_size(task.plan.work(map.channels)), task.plan.threads(),
             task.plan.shared_values * sizeof(Acc), stream>>>(task);
      return cudaSuccess;
    });
    if (task.plan.chunks > 1) {
      reduce_chunks_kernel<Acc><<<element_blocks(values), kElementThreads, 0, stream>>>(
          values, task.plan.chunks, task.workspace);
    }
    const int64_t count = static_cast<int64_t>(map.channels) * sizes.groups * sizes.block_size();
    gather_grad_kernel<T><<<element_blocks(count), kElementThreads, 0, stream>>>(
        pattern, mask, task.workspace, static_cast<T*>(grad_weight));
    return cudaGetLastError();  // of any of the launches: errors of a launch stay until asked for
  });
}

}  // namespace mmsw
