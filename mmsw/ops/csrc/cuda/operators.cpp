// The CUDA kernels as backend.h asks for them: on the current stream of the device of the tensors.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "../backend.h"
#include "launch.h"

namespace mmsw {
namespace {

Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return Dtype::kFloat32;
    case at::kHalf:
      return Dtype::kFloat16;
    case at::kBFloat16:
      return Dtype::kBFloat16;
    default:
      return Dtype::kFloat64;  // front.cpp lets nothing else pass
  }
}

int as_int(int64_t value, const char* name) {
  TORCH_CHECK_VALUE(value < (int64_t{1} << 31), name, " must be below 2**31, got ", value);
  return static_cast<int>(value);
}

MapSizes map_of(const Tensor& map, int64_t channels, int64_t border = 0) {
  return {
      as_int(map.size(0), "batch"), as_int(channels, "channels"),
      as_int(map.size(2) - border, "height"), as_int(map.size(3) - border, "width")};
}

void check_limit(const char* reason, const MapSizes& map, const PatternSizes& sizes) {
  TORCH_CHECK_VALUE(
      reason == nullptr, "the cuda backend cannot run big_kernel ", sizes.big, ", small_kernel ",
      sizes.side, ", num_reps ", sizes.reps, " on a map of ", map.height, " x ", map.width, ": ",
      reason, "; use backend='torch'");
}


Tensor workspace(size_t bytes, const Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

Outputs empty_outputs(const MapSizes& map, const Tensor& like) {
  const auto empty = [&] {
    return at::empty({map.batch, map.channels, map.height, map.width}, like.options());
  };
  return {empty(), empty(), empty()};
}

// The addresses of three maps, as a launcher takes them.
struct Inputs {
  const void* address[3];
  explicit Inputs(const Outputs& maps)
      : address{
            std::get<0>(maps).const_data_ptr(), std::get<1>(maps).const_data_ptr(),
            std::get<2>(maps).const_data_ptr()} {}
};
struct Results {
  void* address[3];
  explicit Results(const Outputs& maps)
      : address{
            std::get<0>(maps).mutable_data_ptr(), std::get<1>(maps).mutable_data_ptr(),
            std::get<2>(maps).mutable_data_ptr()} {}
};

cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

}  // namespace

Outputs run_shift_add(const Tensor& conv_out, const Pattern& pattern) {
  const MapSizes map = map_of(conv_out, pattern.channels, 2 * pattern.sizes.margin());
  check_limit(limit_shift_add(map, pattern.sizes), map, pattern.sizes);
  const Outputs outputs = empty_outputs(map, conv_out);
  C10_CUDA_CHECK(launch_shift_add(
      map, dtype_of(conv_out), conv_out.const_data_ptr(), pattern, Results(outputs).address,
      stream()));
  return outputs;
}

Tensor run_shift_add_grad(const Outputs& grads, const Pattern& pattern) {
  const Tensor& like = std::get<0>(grads);
  const MapSizes map = map_of(like, pattern.channels);
  check_limit(limit_shift_add(map, pattern.sizes), map, pattern.sizes);
  const int64_t border = 2 * pattern.sizes.margin();
  Tensor grad = at::empty(
      {map.batch, int64_t{map.channels} * pattern.sizes.groups, map.height + border,
       map.width + border},
      like.options());
  C10_CUDA_CHECK(launch_shift_add_grad(
      map, dtype_of(like), Inputs(grads).address, pattern, grad.mutable_data_ptr(), stream()));
  return grad;
}

Outputs run_conv(const Tensor& x, const Tensor& weight, const Pattern& pattern) {
  const MapSizes map = map_of(x, pattern.channels);
  const Dtype dtype = dtype_of(x);
  check_limit(limit_conv(map, pattern.sizes, dtype), map, pattern.sizes);
  const Outputs outputs = empty_outputs(map, x);
  const Tensor scratch =
      workspace(workspace_conv(map, cross_of_pattern(pattern.sizes, false), dtype), x);
  C10_CUDA_CHECK(launch_conv(
      map, dtype, x.const_data_ptr(), weight.const_data_ptr(), pattern, Results(outputs).address,
      scratch.mutable_data_ptr(), stream()));
  return outputs;
}

Tensor run_grad_input(const Outputs& grads, const Tensor& weight, const Pattern& pattern) {
  const Tensor& like = std::get<0>(grads);
  const MapSizes map = map_of(like, pattern.channels);
  const Dtype dtype = dtype_of(like);
  check_limit(limit_conv(map, pattern.sizes, dtype), map, pattern.sizes);
  Tensor grad = at::empty_like(like);
  const Tensor scratch =
      workspace(workspace_conv(map, cross_of_pattern(pattern.sizes, true), dtype), like);
  C10_CUDA_CHECK(launch_grad_input(
      map, dtype, Inputs(grads).address, weight.const_data_ptr(), pattern,
      grad.mutable_data_ptr(), scratch.mutable_data_ptr(), stream()));
  return grad;
}

Tensor run_grad_weight(
    const Outputs& grads, const Tensor& x, const std::optional<Tensor>& mask,
    const Pattern& pattern) {
  const MapSizes map = map_of(x, pattern.channels);
  const Dtype dtype = dtype_of(x);
  check_limit(limit_conv(map, pattern.sizes, dtype), map, pattern.sizes);
  const int64_t side = pattern.sizes.side;
  Tensor grad =
      at::empty({int64_t{map.channels} * pattern.sizes.groups, 1, side, side}, x.options());
  const Tensor scratch = workspace(workspace_grad_weight(map, pattern.sizes, dtype), x);
  C10_CUDA_CHECK(launch_grad_weight(
      map, dtype, Inputs(grads).address, x.const_data_ptr(),
      mask.has_value() ? mask->const_data_ptr<bool>() : nullptr, pattern,
      grad.mutable_data_ptr(), scratch.mutable_data_ptr(), stream()));
  return grad;
}

Tensor run_cross(
    const Tensor& x, const Tensor& wide, const Tensor& tall, const std::optional<Tensor>& bias) {
  const MapSizes map = map_of(x, x.size(1));
  const Dtype dtype = dtype_of(x);
  const Cross cross = cross_of_arms(
      as_int(wide.size(2), "N"), as_int(wide.size(1), "taps"), as_int(tall.size(1), "taps"));
  const char* reason = limit_cross(map, cross, dtype);
  TORCH_CHECK_VALUE(
      reason == nullptr, "the cuda backend cannot run arms ", wide.sizes(), " and ", tall.sizes(),
      " on a map of ", map.height, " x ", map.width, ": ", reason, "; use backend='torch'");
  Tensor out = at::empty_like(x);
  const Tensor scratch = workspace(workspace_conv(map, cross, dtype), x);
  C10_CUDA_CHECK(launch_cross(
      map, dtype, x.const_data_ptr(), cross, wide.const_data_ptr(), tall.const_data_ptr(),
      bias.has_value() ? bias->const_data_ptr() : nullptr, out.mutable_data_ptr(),
      scratch.mutable_data_ptr(), stream()));
  return out;
}

}  // namespace mmsw
