// Python module mmsw.ops._cuda: tensors in, tensors out, on the current stream of their device.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <tuple>

#include "launch.h"

namespace {

using at::Tensor;
using mmsw::ConvSizes;
using mmsw::Dtype;
using Outputs = std::tuple<Tensor, Tensor, Tensor>;

Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return Dtype::kFloat32;
    case at::kHalf:
      return Dtype::kFloat16;
    case at::kBFloat16:
      return Dtype::kBFloat16;
    case at::kDouble:
      return Dtype::kFloat64;
    default:
      TORCH_CHECK_TYPE(
          false, "the cuda backend takes float32, float16, bfloat16 and float64, got ",
          tensor.scalar_type(), "; cast the tensor or use backend='torch'");
  }
}

// The tables of a ShiftPattern, contiguous, and the sizes that they fix.
struct Pattern {
  Tensor shift_hv, identity_index;
  ConvSizes sizes;

  const int* shifts() const { return shift_hv.const_data_ptr<int>(); }
  const int64_t* picked() const { return identity_index.const_data_ptr<int64_t>(); }
};

int as_int(int64_t value, const char* name) {
  TORCH_CHECK_VALUE(
      value >= 0 && value < (int64_t{1} << 31), name, " must be below 2**31, got ", value);
  return static_cast<int>(value);
}

Pattern make_pattern(
    const Tensor& map, const Tensor& shift_hv, const Tensor& identity_index, int64_t big_kernel,
    int64_t small_kernel, int64_t border) {
  TORCH_CHECK_VALUE(
      map.is_cuda(), "the cuda backend takes CUDA tensors, got one on ", map.device());
  for (const Tensor* table : {&shift_hv, &identity_index}) {
    TORCH_CHECK_VALUE(
        table->device() == map.device(), "the map is on ", map.device(), ", the pattern on ",
        table->device(), "; move one of them with .to()");
  }
  TORCH_CHECK_VALUE(
      map.dim() == 4 && shift_hv.dim() == 2 && identity_index.dim() == 2,
      "expected maps [B, C, H, W], shift_hv [C * nk, 2 * R] and identity_index [C, R], got ",
      map.sizes(), ", ", shift_hv.sizes(), " and ", identity_index.sizes());
  Pattern pattern;
  pattern.shift_hv = shift_hv.to(at::kInt).contiguous();
  pattern.identity_index = identity_index.to(at::kLong).contiguous();
  ConvSizes& sizes = pattern.sizes;
  sizes.batch = as_int(map.size(0), "batch");
  sizes.channels = as_int(identity_index.size(0), "channels");
  sizes.height = as_int(map.size(2) - border, "height");
  sizes.width = as_int(map.size(3) - border, "width");
  sizes.side = as_int(small_kernel, "small_kernel");
  sizes.big = as_int(big_kernel, "big_kernel");
  sizes.reps = as_int(identity_index.size(1), "num_reps");
  sizes.groups = (sizes.big + sizes.side - 1) / sizes.side;
  TORCH_CHECK_VALUE(
      shift_hv.size(0) == identity_index.size(0) * sizes.groups &&
          shift_hv.size(1) == 2 * identity_index.size(1),
      "shift_hv ", shift_hv.sizes(), " does not fit identity_index ", identity_index.sizes(),
      " with ", sizes.groups, " groups per channel");
  return pattern;
}

void check_limit(const char* reason, const ConvSizes& sizes) {
  TORCH_CHECK_VALUE(
      reason == nullptr, "the cuda backend cannot run big_kernel ", sizes.big, ", small_kernel ",
      sizes.side, ", num_reps ", sizes.reps, " on a map of ", sizes.height, " x ", sizes.width,
      ": ", reason, "; use backend='torch'");
}

void check_map(const Tensor& tensor, const Tensor& like, const char* name) {
  TORCH_CHECK_VALUE(
      tensor.sizes() == like.sizes() && tensor.scalar_type() == like.scalar_type() &&
          tensor.device() == like.device(),
      name, " must be ", like.sizes(), " ", like.scalar_type(), " on ", like.device(), ", got ",
      tensor.sizes(), " ", tensor.scalar_type(), " on ", tensor.device());
}

void check_weight(const Tensor& weight, const Tensor& map, const ConvSizes& sizes) {
  TORCH_CHECK_VALUE(
      weight.numel() == static_cast<int64_t>(sizes.channels) * sizes.groups * sizes.taps() &&
          weight.scalar_type() == map.scalar_type() && weight.device() == map.device(),
      "weight must be [", static_cast<int64_t>(sizes.channels) * sizes.groups, ", 1, ", sizes.side,
      ", ", sizes.side, "] ", map.scalar_type(), " on ", map.device(), ", got ", weight.sizes(),
      " ", weight.scalar_type(), " on ", weight.device());
}

void check_channels(const Tensor& map, int64_t channels) {
  TORCH_CHECK_VALUE(
      map.size(1) == channels && map.size(2) > 0 && map.size(3) > 0, "expected maps [B, ", channels,
      ", H, W] with H, W >= 1, got ", map.sizes());
}

Tensor workspace(size_t bytes, const Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

Outputs shift_add(
    const Tensor& conv_out, const Tensor& shift_hv, const Tensor& identity_index,
    int64_t big_kernel, int64_t small_kernel) {
  const int64_t border = 2 * (small_kernel - 1 - small_kernel / 2);
  const Pattern pattern =
      make_pattern(conv_out, shift_hv, identity_index, big_kernel, small_kernel, border);
  const ConvSizes& sizes = pattern.sizes;
  check_channels(conv_out, static_cast<int64_t>(sizes.channels) * sizes.groups);
  check_limit(mmsw::limit_shift_add(sizes), sizes);
  const c10::cuda::CUDAGuard guard(conv_out.device());
  const Tensor source = conv_out.contiguous();
  const auto empty = [&] {
    return at::empty({sizes.batch, sizes.channels, sizes.height, sizes.width}, source.options());
  };
  Outputs out = {empty(), empty(), empty()};
  C10_CUDA_CHECK(mmsw::launch_shift_add(
      sizes, dtype_of(source), source.const_data_ptr(), pattern.shifts(), pattern.picked(),
      std::get<0>(out).mutable_data_ptr(), std::get<1>(out).mutable_data_ptr(),
      std::get<2>(out).mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return out;
}

Tensor shift_add_grad(
    const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i, const Tensor& shift_hv,
    const Tensor& identity_index, int64_t big_kernel, int64_t small_kernel) {
  const Pattern pattern =
      make_pattern(grad_h, shift_hv, identity_index, big_kernel, small_kernel, 0);
  const ConvSizes& sizes = pattern.sizes;
  check_channels(grad_h, sizes.channels);
  check_map(grad_v, grad_h, "grad_v");
  check_map(grad_i, grad_h, "grad_i");
  check_limit(mmsw::limit_shift_add(sizes), sizes);
  const c10::cuda::CUDAGuard guard(grad_h.device());
  const Tensor h = grad_h.contiguous(), v = grad_v.contiguous(), i = grad_i.contiguous();
  const int64_t border = 2 * (small_kernel - 1 - small_kernel / 2);
  Tensor grad = at::empty(
      {sizes.batch, static_cast<int64_t>(sizes.channels) * sizes.groups, sizes.height + border,
       sizes.width + border},
      h.options());
  C10_CUDA_CHECK(mmsw::launch_shift_add_grad(
      sizes, dtype_of(h), h.const_data_ptr(), v.const_data_ptr(), i.const_data_ptr(),
      pattern.shifts(), pattern.picked(), grad.mutable_data_ptr(),
      c10::cuda::getCurrentCUDAStream()));
  return grad;
}

Outputs shift_wise_conv2d(
    const Tensor& x, const Tensor& weight, const Tensor& shift_hv, const Tensor& identity_index,
    int64_t big_kernel, int64_t small_kernel) {
  const Pattern pattern = make_pattern(x, shift_hv, identity_index, big_kernel, small_kernel, 0);
  const ConvSizes& sizes = pattern.sizes;
  const Dtype dtype = dtype_of(x);
  check_channels(x, sizes.channels);
  check_weight(weight, x, sizes);
  check_limit(mmsw::limit_conv(sizes, dtype), sizes);
  const c10::cuda::CUDAGuard guard(x.device());
  const Tensor map = x.contiguous(), kernels = weight.contiguous();
  Outputs out = {
      at::empty(map.sizes(), map.options()), at::empty(map.sizes(), map.options()),
      at::empty(map.sizes(), map.options())};
  const Tensor scratch = workspace(mmsw::workspace_conv(sizes, dtype), map);
  C10_CUDA_CHECK(mmsw::launch_conv(
      sizes, dtype, map.const_data_ptr(), kernels.const_data_ptr(), pattern.shifts(),
      pattern.picked(), std::get<0>(out).mutable_data_ptr(), std::get<1>(out).mutable_data_ptr(),
      std::get<2>(out).mutable_data_ptr(), scratch.mutable_data_ptr(),
      c10::cuda::getCurrentCUDAStream()));
  return out;
}

Tensor shift_wise_conv2d_grad_input(
    const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i, const Tensor& weight,
    const Tensor& shift_hv, const Tensor& identity_index, int64_t big_kernel,
    int64_t small_kernel) {
  const Pattern pattern =
      make_pattern(grad_h, shift_hv, identity_index, big_kernel, small_kernel, 0);
  const ConvSizes& sizes = pattern.sizes;
  const Dtype dtype = dtype_of(grad_h);
  check_channels(grad_h, sizes.channels);
  check_map(grad_v, grad_h, "grad_v");
  check_map(grad_i, grad_h, "grad_i");
  check_weight(weight, grad_h, sizes);
  check_limit(mmsw::limit_conv(sizes, dtype), sizes);
  const c10::cuda::CUDAGuard guard(grad_h.device());
  const Tensor h = grad_h.contiguous(), v = grad_v.contiguous(), i = grad_i.contiguous();
  const Tensor kernels = weight.contiguous();
  Tensor grad = at::empty(h.sizes(), h.options());
  const Tensor scratch = workspace(mmsw::workspace_conv(sizes, dtype), h);
  C10_CUDA_CHECK(mmsw::launch_conv_grad_input(
      sizes, dtype, h.const_data_ptr(), v.const_data_ptr(), i.const_data_ptr(),
      kernels.const_data_ptr(), pattern.shifts(), pattern.picked(), grad.mutable_data_ptr(),
      scratch.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return grad;
}

Tensor shift_wise_conv2d_grad_weight(
    const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i, const Tensor& x,
    const Tensor& shift_hv, const Tensor& identity_index, int64_t big_kernel,
    int64_t small_kernel) {
  const Pattern pattern = make_pattern(x, shift_hv, identity_index, big_kernel, small_kernel, 0);
  const ConvSizes& sizes = pattern.sizes;
  const Dtype dtype = dtype_of(x);
  check_channels(x, sizes.channels);
  check_map(grad_h, x, "grad_h");
  check_map(grad_v, x, "grad_v");
  check_map(grad_i, x, "grad_i");
  check_limit(mmsw::limit_conv(sizes, dtype), sizes);
  const c10::cuda::CUDAGuard guard(x.device());
  const Tensor map = x.contiguous();
  const Tensor h = grad_h.contiguous(), v = grad_v.contiguous(), i = grad_i.contiguous();
  Tensor grad = at::empty(
      {static_cast<int64_t>(sizes.channels) * sizes.groups, 1, small_kernel, small_kernel},
      map.options());
  const Tensor scratch = workspace(mmsw::workspace_grad_weight(sizes, dtype), map);
  C10_CUDA_CHECK(mmsw::launch_conv_grad_weight(
      sizes, dtype, h.const_data_ptr(), v.const_data_ptr(), i.const_data_ptr(),
      map.const_data_ptr(), pattern.shifts(), pattern.picked(), grad.mutable_data_ptr(),
      scratch.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return grad;
}

}  // namespace

// The wrapper releases the interpreter lock and turns torch's errors into Python's.
PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  using torch::wrap_pybind_function_no_gil;
  module.def("shift_add", wrap_pybind_function_no_gil(shift_add));
  module.def("shift_add_grad", wrap_pybind_function_no_gil(shift_add_grad));
  module.def("shift_wise_conv2d", wrap_pybind_function_no_gil(shift_wise_conv2d));
  module.def(
      "shift_wise_conv2d_grad_input", wrap_pybind_function_no_gil(shift_wise_conv2d_grad_input));
  module.def(
      "shift_wise_conv2d_grad_weight", wrap_pybind_function_no_gil(shift_wise_conv2d_grad_weight));
}
