// The CUDA operators: tensors to pointers, on the current stream. Implements ../backend.h.
#include "../backend.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>

#include <array>

#include "tensors.h"

namespace mmsw {
namespace {

void check_limit(const char* reason, const MapSizes& map, const PatternSizes& sizes) {
  check_limit(reason, map, "big_kernel ", sizes.big, ", small_kernel ", sizes.side, ", num_reps ",
              sizes.reps);
}

// Three maps, for the time of a call, and their addresses.
struct Maps {
  std::array<Tensor, 3> tensors;
  std::array<void*, 3> data;

  explicit Maps(const Outputs& maps)
      : tensors{std::get<0>(maps), std::get<1>(maps), std::get<2>(maps)} {
    for (int i = 0; i < 3; ++i) data[i] = const_cast<void*>(tensors[i].const_data_ptr());
  }
  Maps(const MapSizes& map, const Tensor& like) {
    for (int i = 0; i < 3; ++i) {
      tensors[i] = at::empty({map.batch, map.channels, map.height, map.width}, like.options());
      data[i] = tensors[i].mutable_data_ptr();
    }
  }
  const void* const* inputs() const { return data.data(); }
  Outputs outputs() const { return {tensors[0], tensors[1], tensors[2]}; }
};

}  // namespace

Outputs run_shift_add(const Tensor& conv_out, const Pattern& pattern) {
  const MapSizes map = map_sizes(conv_out, pattern.channels, 2 * pattern.sizes.margin());
  check_limit(limit_shift_add(map, pattern.sizes), map, pattern.sizes);
  const Maps out(map, conv_out);
  C10_CUDA_CHECK(launch_shift_add(map, dtype_of(conv_out), conv_out.const_data_ptr(), pattern,
                                  out.data.data(), stream()));
  return out.outputs();
}

Tensor run_shift_add_grad(const Outputs& grads, const Pattern& pattern) {
  const Maps in(grads);
  const MapSizes map = map_sizes(in.tensors[0], pattern.channels);
  check_limit(limit_shift_add(map, pattern.sizes), map, pattern.sizes);
  const int64_t border = 2 * pattern.sizes.margin();
  const Tensor grad = at::empty({map.batch, int64_t{map.channels} * pattern.sizes.groups,
                                 map.height + border, map.width + border},
                                in.tensors[0].options());
  C10_CUDA_CHECK(launch_shift_add_grad(map, dtype_of(grad), in.inputs(), pattern,
                                       grad.mutable_data_ptr(), stream()));
  return grad;
}

Outputs run_conv(const Tensor& x, const Tensor& weight, const Pattern& pattern) {
  const MapSizes map = map_sizes(x, pattern.channels);
  const Dtype dtype = dtype_of(x);
  check_limit(limit_conv(map, pattern.sizes, dtype), map, pattern.sizes);
  const Maps out(map, x);
  const Tensor scratch =
      workspace(workspace_conv(map, cross_of_pattern(pattern.sizes, false), dtype), x);
  C10_CUDA_CHECK(launch_conv(map, dtype, x.const_data_ptr(), weight.const_data_ptr(), pattern,
                             out.data.data(), scratch.mutable_data_ptr(), stream()));
  return out.outputs();
}

Tensor run_grad_input(const Outputs& grads, const Tensor& weight, const Pattern& pattern) {
  const Maps in(grads);
  const MapSizes map = map_sizes(in.tensors[0], pattern.channels);
  const Dtype dtype = dtype_of(weight);
  check_limit(limit_conv(map, pattern.sizes, dtype), map, pattern.sizes);
  const Tensor grad = at::empty(in.tensors[0].sizes(), in.tensors[0].options());
  const Tensor scratch =
      workspace(workspace_conv(map, cross_of_pattern(pattern.sizes, true), dtype), grad);
  C10_CUDA_CHECK(launch_grad_input(map, dtype, in.inputs(), weight.const_data_ptr(), pattern,
                                   grad.mutable_data_ptr(), scratch.mutable_data_ptr(), stream()));
  return grad;
}

Tensor run_grad_weight(const Outputs& grads, const Tensor& x, const std::optional<Tensor>& mask,
                       const Pattern& pattern) {
  const Maps in(grads);
  const MapSizes map = map_sizes(x, pattern.channels);
  const Dtype dtype = dtype_of(x);
  check_limit(limit_conv(map, pattern.sizes, dtype), map, pattern.sizes);
  const int64_t side = pattern.sizes.side;
  const Tensor grad =
      at::empty({int64_t{map.channels} * pattern.sizes.groups, 1, side, side}, x.options());
  const Tensor scratch = workspace(workspace_grad_weight(map, pattern.sizes, dtype), x);
  C10_CUDA_CHECK(launch_grad_weight(map, dtype, in.inputs(), x.const_data_ptr(),
                                    mask ? mask->const_data_ptr<bool>() : nullptr, pattern,
                                    grad.mutable_data_ptr(), scratch.mutable_data_ptr(), stream()));
  return grad;
}

Tensor run_cross(const Tensor& x, const Tensor& wide, const Tensor& tall,
                 const std::optional<Tensor>& bias) {
  const MapSizes map = map_sizes(x, x.size(1));
  const Dtype dtype = dtype_of(x);
  const Cross cross = cross_of_arms(as_int(wide.size(2), "N"), as_int(wide.size(1), "taps"),
                                    as_int(tall.size(1), "taps"));
  check_limit(limit_cross(map, cross, dtype), map, "arms of ", wide.size(1), " and ", tall.size(1),
              " taps, N = ", cross.side);
  const Tensor out = at::empty(x.sizes(), x.options());
  const Tensor scratch = workspace(workspace_conv(map, cross, dtype), x);
  C10_CUDA_CHECK(launch_cross(map, dtype, x.const_data_ptr(), cross, wide.const_data_ptr(),
                              tall.const_data_ptr(), bias ? bias->const_data_ptr() : nullptr,
                              out.mutable_data_ptr(), scratch.mutable_data_ptr(), stream()));
  return out;
}

}  // namespace mmsw
