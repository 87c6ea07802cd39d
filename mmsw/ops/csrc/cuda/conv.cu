// Kernels and launchers of the fused operator: forward pass, gradient of the map, folded form.
#include "conv.cuh"

#include "dispatch.cuh"
#include "elements.cuh"

namespace mmsw {
namespace {

constexpr int kAssembleThreads = 128;

extern __shared__ int shared_integers[];

template <typename T>
__global__ void __launch_bounds__(kAssembleThreads, 4)
    assemble_kernel(Pattern pattern, Cross cross, bool flipped, const T* __restrict__ weight,
                    typename Accumulator<T>::type* blocks, uint32_t* occupied) {
  for (int channel = blockIdx.x; channel < pattern.channels; channel += gridDim.x) {
    assemble_pattern<T>(DeviceTeam(), channel, pattern, cross, flipped, weight, blocks, occupied,
                        shared_integers);
  }
}

template <typename T>
__global__ void __launch_bounds__(kAssembleThreads, 4)
    assemble_arms_kernel(int channels, Cross cross, const T* __restrict__ wide,
                         const T* __restrict__ tall, typename Accumulator<T>::type* blocks,
                         uint32_t* occupied) {
  for (int channel = blockIdx.x; channel < channels; channel += gridDim.x) {
    assemble_arms<T>(DeviceTeam(), channel, cross, wide, tall, blocks, occupied, shared_integers);
  }
}

// Blocks and masks of all channels in a workspace.
template <typename T>
void place_blocks(ConvTask<T>& task, void* workspace) {
  auto* blocks = static_cast<typename Accumulator<T>::type*>(workspace);
  task.blocks = blocks;
  task.occupied = reinterpret_cast<uint32_t*>(blocks + static_cast<int64_t>(task.map.channels) *
                                                           task.cross.values());
}

template <typename T>
cudaError_t run(ConvTask<T> task, cudaStream_t stream) {
  using Acc = typename Accumulator<T>::type;
  task.plan = plan_conv(task.map, task.cross, sizeof(Acc));
  return with_side<T>(task.cross.side, task.plan.tiles.tile, [&](auto side, auto tile) {
    conv_kernel<T, side.value, tile.value><<<grid_size(task.work()), task.plan.threads,
                                             task.plan.shared_values * sizeof(Acc), stream>>>(task);
    return cudaGetLastError();
  });
}

template <typename T>
cudaError_t run_pattern(ConvTask<T> task, bool flipped, const T* weight, const Pattern& pattern,
                        void* workspace, cudaStream_t stream) {
  task.cross = cross_of_pattern(pattern.sizes, flipped);
  place_blocks(task, workspace);
  assemble_kernel<T><<<grid_size(task.map.channels), kAssembleThreads,
                       pattern_scratch(pattern.sizes) * sizeof(int), stream>>>(
      pattern, task.cross, flipped, weight, const_cast<typename Accumulator<T>::type*>(task.blocks),
      const_cast<uint32_t*>(task.occupied));
  const cudaError_t error = cudaGetLastError();
  return error != cudaSuccess ? error : run(task, stream);
}

}  // namespace

const char* limit_cross(const MapSizes& map, const Cross& cross, Dtype dtype) {
  if (map.plane_size() >= (int64_t{1} << 31)) return "a map must hold fewer than 2**31 positions";
  if (arms_scratch(cross) * sizeof(int) > kSharedBytes) {
    return "an arm has too many taps for shared memory";
  }
  if (plan_conv(map, cross, accumulator_bytes(dtype)).stage_slots == 0) {
    return "small_kernel is too large for shared memory";
  }
  return nullptr;
}

size_t workspace_conv(const MapSizes& map, const Cross& cross, Dtype dtype) {
  return static_cast<size_t>(map.channels) *
         (cross.values() * accumulator_bytes(dtype) + cross.words() * sizeof(uint32_t));
}

cudaError_t launch_conv(const MapSizes& map, Dtype dtype, const void* x, const void* weight,
                        const Pattern& pattern, void* const outputs[3], void* workspace,
                        cudaStream_t stream) {
  if (map.empty()) return cudaSuccess;
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ConvTask<T> task = {};
    task.map = map;
    for (int i = 0; i < 3; ++i) {
      task.inputs[i] = static_cast<const T*>(x);
      task.outputs[i] = static_cast<T*>(outputs[i]);
    }
    return run_pattern<T>(task, false, static_cast<const T*>(weight), pattern, workspace, stream);
  });
}

cudaError_t launch_grad_input(const MapSizes& map, Dtype dtype, const void* const grads[3],
                              const void* weight, const Pattern& pattern, void* grad_x,
                              void* workspace, cudaStream_t stream) {
  if (map.empty()) return cudaSuccess;
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ConvTask<T> task = {};
    task.map = map;
    for (int i = 0; i < 3; ++i) task.inputs[i] = static_cast<const T*>(grads[i]);
    task.outputs[2] = static_cast<T*>(grad_x);
    return run_pattern<T>(task, true, static_cast<const T*>(weight), pattern, workspace, stream);
  });
}

cudaError_t launch_cross(const MapSizes& map, Dtype dtype, const void* x, const Cross& cross,
                         const void* wide, const void* tall, const void* bias, void* out,
                         void* workspace, cudaStream_t stream) {
  if (map.empty()) return cudaSuccess;
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = typename Accumulator<T>::type;
    ConvTask<T> task = {};
    task.map = map;
    task.cross = cross;
    task.inputs[0] = task.inputs[1] = static_cast<const T*>(x);
    task.outputs[2] = static_cast<T*>(out);
    task.bias = static_cast<const T*>(bias);
    place_blocks(task, workspace);
    assemble_arms_kernel<T>
        <<<grid_size(map.channels), kAssembleThreads, arms_scratch(cross) * sizeof(int), stream>>>(
            map.channels, cross, static_cast<const T*>(wide), static_cast<const T*>(tall),
            const_cast<Acc*>(task.blocks), const_cast<uint32_t*>(task.occupied));
    const cudaError_t error = cudaGetLastError();
    return error != cudaSuccess ? error : run(task, stream);
  });
}

}  // namespace mmsw
