// Kernels and launchers of the fused operator: forward pass and gradient of the input.
#include "dispatch.cuh"
#include "shift_wise_grad_weight.cuh"

namespace mmsw {
namespace {

constexpr int kAssembleThreads = 128;
constexpr int kConvThreads = kMaxTile * kMaxTile / kOutputs;
constexpr int kMinBlocks = 4;  // per multiprocessor; leaves 128 registers for a thread, no spills

extern __shared__ __align__(16) unsigned char shared_bytes[];

template <typename T>
__global__ void __launch_bounds__(kAssembleThreads, kMinBlocks) assemble_kernel(
    ConvSizes sizes, bool flipped, const T* __restrict__ weight,
    const int* __restrict__ shift_hv, const int64_t* __restrict__ identity_index,
    typename Accumulator<T>::type* units, uint8_t* occupied) {
  for (int channel = blockIdx.x; channel < sizes.channels; channel += gridDim.x) {
    assemble_channel<T>(
        DeviceBlock(), channel, sizes, flipped, weight, shift_hv, identity_index, units, occupied,
        reinterpret_cast<int*>(shared_bytes));
  }
}

template <typename T, int kSide>
__global__ void __launch_bounds__(kConvThreads, kMinBlocks) conv_kernel(
    bool forward, ConvSizes sizes, ConvPlan plan, ConvMaps<T> maps,
    const typename Accumulator<T>::type* __restrict__ units,
    const uint8_t* __restrict__ occupied) {
  const int64_t work_count = sizes.planes() * plan.tiles();
  for (int64_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    conv_tile<T, kSide>(
        DeviceBlock(), forward, work, sizes, plan, maps, units, occupied,
        reinterpret_cast<typename Accumulator<T>::type*>(shared_bytes));
  }
}

int64_t unit_values(const ConvSizes& sizes) {
  return static_cast<int64_t>(sizes.channels) * sizes.units() * sizes.taps();
}

template <typename T>
cudaError_t run_conv(
    bool forward, const ConvSizes& sizes, const ConvMaps<T>& maps, const T* weight, const int* shift_hv,
    const int64_t* identity_index, void* workspace, cudaStream_t stream) {
  using Acc = typename Accumulator<T>::type;
  const ConvPlan plan = plan_conv(sizes, sizeof(Acc));
  if (sizes.planes() == 0) return cudaSuccess;
  Acc* units = static_cast<Acc*>(workspace);
  uint8_t* occupied = reinterpret_cast<uint8_t*>(units + unit_values(sizes));
  assemble_kernel<T>
      <<<grid_size(sizes.channels), kAssembleThreads, 2 * sizes.reps * sizes.groups * sizeof(int),
         stream>>>(sizes, !forward, weight, shift_hv, identity_index, units, occupied);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  const size_t shared = conv_shared_bytes(sizes, plan.tile, plan.stage_slots, sizeof(Acc));
  return with_side<T>(sizes.side, [&](auto side) {
    conv_kernel<T, side.value>
        <<<grid_size(sizes.planes() * plan.tiles()), conv_threads(plan), shared, stream>>>(
            forward, sizes, plan, maps, units, occupied);
    return cudaGetLastError();
  });
}

}  // namespace

const char* limit_conv(const ConvSizes& sizes, Dtype dtype) {
  const int bytes = accumulator_bytes(dtype);
  if (sizes.plane_size() >= (int64_t{1} << 31)) return "a map must hold fewer than 2**31 positions";
  if (2 * static_cast<int64_t>(sizes.reps) * sizes.groups * sizeof(int) > kSharedBytes) {
    return "num_reps * num_groups is too large for shared memory";
  }
  if (plan_conv(sizes, bytes).stage_slots == 0 ||
      plan_grad(sizes, whole_slots(sizes, dtype), bytes).block_pieces == 0) {
    return "small_kernel is too large for shared memory";
  }
  return nullptr;
}

size_t workspace_conv(const ConvSizes& sizes, Dtype dtype) {
  return unit_values(sizes) * accumulator_bytes(dtype) +
         static_cast<size_t>(sizes.channels) * sizes.units();
}

cudaError_t launch_conv(
    const ConvSizes& sizes, Dtype dtype, const void* x, const void* weight, const int* shift_hv,
    const int64_t* identity_index, void* out_h, void* out_v, void* out_i, void* workspace,
    cudaStream_t stream) {
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* map = static_cast<const T*>(x);
    const ConvMaps<T> maps = {
        map, map, map, static_cast<T*>(out_h), static_cast<T*>(out_v), static_cast<T*>(out_i)};
    return run_conv<T>(
        true, sizes, maps, static_cast<const T*>(weight), shift_hv, identity_index, workspace, stream);
  });
}

cudaError_t launch_conv_grad_input(
    const ConvSizes& sizes, Dtype dtype, const void* grad_h, const void* grad_v,
    const void* grad_i, const void* weight, const int* shift_hv, const int64_t* identity_index,
    void* grad_x, void* workspace, cudaStream_t stream) {
  return with_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ConvMaps<T> maps = {
        static_cast<const T*>(grad_h), static_cast<const T*>(grad_v),
        static_cast<const T*>(grad_i), nullptr, nullptr, static_cast<T*>(grad_x)};
    return run_conv<T>(
        false, sizes, maps, static_cast<const T*>(weight), shift_hv, identity_index, workspace, stream);
  });
}

}  // namespace mmsw
