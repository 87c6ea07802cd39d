// Kernels and launchers of depthwise convolutions that are cut into strips (strips.cuh).
#include "conv.cuh"
#include "dispatch.cuh"
#include "grad_weight.cuh"

namespace mmsw {
namespace {

constexpr int kAssembleThreads = 128;

extern __shared__ int shared_integers[];

template <typename T>
__global__ void __launch_bounds__(kAssembleThreads, 4)
    assemble_strips_kernel(int channels, Strips strips, const T* __restrict__ weight,
                           typename Accumulator<T>::type* blocks, uint32_t* occupied) {
  for (int channel = blockIdx.x; channel < channels; channel += gridDim.x) {
    assemble_strips<T>(DeviceTeam(), channel, strips, weight, blocks, occupied, shared_integers);
  }
}

template <typename T>
__global__ void __launch_bounds__(kElementThreads, 2)
    gather_strips_kernel(int64_t count, Strips strips,
                         const typename Accumulator<T>::type* __restrict__ block_grads,
                         T* grad_weight) {
  for_each(count, [&](int64_t i) { grad_weight[i] = gather_strips<T>(i, strips, block_grads); });
}

Strips cut(const DepthwiseSizes& kernel, bool flipped, bool overlapping) {
  const int side = strip_side(kernel.height, kernel.width, kernel.side);
  return strips_of(kernel.height, kernel.width, side, flipped, overlapping);
}

GradPlan plan_of(const MapSizes& map, const Strips& strips, Dtype dtype) {
  return plan_grad(map, strip_sizes(strips), warp_slots(strips.side, dtype),
                   accumulator_bytes(dtype), strips.count(), /*identity=*/false);
}

int64_t block_values(const MapSizes& map, const Strips& strips) {
  return static_cast<int64_t>(map.channels) * strips.blocks() * strips.side * strips.side;
}

}  // namespace

const char* limit_depthwise(const MapSizes& map, const DepthwiseSizes& kernel, Dtype dtype) {
  const Strips strips = cut(kernel, false, true);
  if (strips_scratch(strips) * static_cast<int64_t>(sizeof(int)) > kSharedBytes) {
    return "the kernel has too many blocks for shared memory";
  }
  if (plan_of(map, cut(kernel, false, false), dtype).warps == 0) {
    return "small_kernel is too large for shared memory";
  }
  return limit_cross(map, strips.cross(), dtype);
}

size_t workspace_depthwise(const MapSizes& map, const DepthwiseSizes& kernel, Dtype dtype) {
  return workspace_conv(map, cut(kernel, false, true).cross(), dtype);
}

size_t workspace_depthwise_grad(const MapSizes& map, const DepthwiseSizes& kernel, Dtype dtype) {
  const Strips strips = cut(kernel, false, false);
  return static_cast<size_t>(block_values(map, strips)) * plan_of(map, strips, dtype).chunks *
         accumulator_bytes(dtype);
}

cudaError_t launch_depthwise(const MapSizes& map, Dtype dtype, const void* x, const void* weight,
                             const void* bias, const DepthwiseSizes& kernel, bool flipped,
                             void* out, void* workspace, cudaStream_t stream) {
  if (map.empty()) return cudaSuccess;
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = typename Accumulator<T>::type;
    StripsTask<T> task = {};
    task.strips = cut(kernel, flipped, true);
    task.map = map;
    task.cross = task.strips.cross();
    task.plan = plan_conv(map, task.cross, sizeof(Acc));
    task.inputs[0] = static_cast<const T*>(x);
    task.outputs[0] = static_cast<T*>(out);
    task.bias = static_cast<const T*>(bias);
    auto* blocks = static_cast<Acc*>(workspace);
    auto* occupied = reinterpret_cast<uint32_t*>(blocks + static_cast<int64_t>(map.channels) *
                                                              task.cross.values());
    task.blocks = blocks;
    task.occupied = occupied;
    assemble_strips_kernel<T>
        <<<grid_size(map.channels), kAssembleThreads, strips_scratch(task.strips) * sizeof(int),
           stream>>>(map.channels, task.strips, static_cast<const T*>(weight), blocks, occupied);
    with_side<T>(task.strips.side, task.plan.tiles.tile, [&](auto side, auto tile) {
      strips_kernel<T, side.value, tile.value>
          <<<grid_size(task.work()), task.plan.threads, task.plan.shared_values * sizeof(Acc),
             stream>>>(task);
      return cudaSuccess;
    });
    return cudaGetLastError();  // of either launch: errors of a launch stay until asked for
  });
}

cudaError_t launch_depthwise_grad(const MapSizes& map, Dtype dtype, const void* grad, const void* x,
                                  const DepthwiseSizes& kernel, void* grad_weight, void* workspace,
                                  cudaStream_t stream) {
  if (map.channels == 0) return cudaSuccess;  // an empty map still has a gradient: zeros
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = typename Accumulator<T>::type;
    StripsGradTask<T> task = {};
    task.strips = cut(kernel, false, false);
    task.map = map;
    task.sizes = strip_sizes(task.strips);
    task.cross = task.strips.cross();
    task.plan = plan_of(map, task.strips, dtype);
    for (const T*& one : task.grads) one = static_cast<const T*>(grad);
    task.x = static_cast<const T*>(x);
    task.workspace = static_cast<Acc*>(workspace);
    with_side<T>(task.strips.side, task.plan.tiles.tile, [&](auto side, auto tile) {
      strips_grad_kernel<T, side.value, tile.value>
          <<<grid_size(task.plan.work(map.channels)), task.plan.threads(),
             task.plan.shared_values * sizeof(Acc), stream>>>(task);
      return cudaSuccess;
    });
    const int64_t values = block_values(map, task.strips);
    if (task.plan.chunks > 1) {
      reduce_chunks_kernel<Acc><<<element_blocks(values), kElementThreads, 0, stream>>>(
          values, task.plan.chunks, task.workspace);
    }
    const int64_t count = static_cast<int64_t>(map.channels) * task.strips.weights();
    gather_strips_kernel<T><<<element_blocks(count), kElementThreads, 0, stream>>>(
        count, task.strips, task.workspace, static_cast<T*>(grad_weight));
    return cudaGetLastError();
  });
}

}  // namespace mmsw
