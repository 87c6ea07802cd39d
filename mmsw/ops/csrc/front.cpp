// The one checked front of the compiled operators: schemas, and the kernels behind their checks.
//
// Compiled into the library of each backend; what compilers need to know of the shapes stands in
// mmsw/ops/library.py.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>
#include <torch/version.h>

#include <string>

#include "checks.h"

namespace mmsw {
namespace {

Outputs empty_outputs(IntArrayRef sizes, const Tensor& like) {
  return {at::empty(sizes, like.options()), at::empty(sizes, like.options()),
          at::empty(sizes, like.options())};
}

}  // namespace

Outputs shift_add(const Tensor& conv_out, MMSW_TABLES) {
  const Tables tables = read_tables(conv_out, MMSW_PASS_TABLES);
  const int64_t border = tables.border();
  check_map(conv_out, "conv_out", tables.kernels(), border);
  if (conv_out.size(0) == 0) {
    return empty_outputs(
        {0, tables.channels(), conv_out.size(2) - border, conv_out.size(3) - border}, conv_out);
  }
  const c10::DeviceGuard guard(conv_out.device());
  return run_shift_add(conv_out.contiguous(), tables.pattern);
}

Tensor shift_add_grad(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                      MMSW_TABLES) {
  const Tables tables = read_tables(grad_h, MMSW_PASS_TABLES);
  const int64_t border = tables.border();
  check_map(grad_h, "grad_h", tables.channels());
  const Outputs grads = ready_grads(grad_h, grad_v, grad_i, grad_h);
  if (grad_h.size(0) == 0) {
    return at::empty({0, tables.kernels(), grad_h.size(2) + border, grad_h.size(3) + border},
                     grad_h.options());
  }
  const c10::DeviceGuard guard(grad_h.device());
  return run_shift_add_grad(grads, tables.pattern);
}

Outputs shift_wise_conv2d(const Tensor& x, const Tensor& weight, const OptionalTensor& mask,
                          MMSW_TABLES) {
  const Tables tables = read_tables(x, MMSW_PASS_TABLES);
  check_map(x, "x", tables.channels());
  check_weight(weight, x, tables);
  ready_mask(mask, x, tables);  // only derivatives look at it
  if (x.size(0) == 0) return empty_outputs(x.sizes(), x);
  const c10::DeviceGuard guard(x.device());
  return run_conv(x.contiguous(), weight.contiguous(), tables.pattern);
}

Tensor shift_wise_conv2d_grad_input(const Tensor& grad_h, const Tensor& grad_v,
                                    const Tensor& grad_i, const Tensor& weight,
                                    const OptionalTensor& mask, MMSW_TABLES) {
  const Tables tables = read_tables(grad_h, MMSW_PASS_TABLES);
  check_map(grad_h, "grad_h", tables.channels());
  const Outputs grads = ready_grads(grad_h, grad_v, grad_i, grad_h);
  check_weight(weight, grad_h, tables);
  ready_mask(mask, grad_h, tables);
  if (grad_h.size(0) == 0) return at::empty(grad_h.sizes(), grad_h.options());
  const c10::DeviceGuard guard(grad_h.device());
  return run_grad_input(grads, weight.contiguous(), tables.pattern);
}

Tensor shift_wise_conv2d_grad_weight(const Tensor& grad_h, const Tensor& grad_v,
                                     const Tensor& grad_i, const Tensor& x,
                                     const OptionalTensor& mask, MMSW_TABLES) {
  const Tables tables = read_tables(x, MMSW_PASS_TABLES);
  check_map(x, "x", tables.channels());
  const Outputs grads = ready_grads(grad_h, grad_v, grad_i, x);
  const OptionalTensor kept = ready_mask(mask, x, tables);
  const c10::DeviceGuard guard(x.device());
  if (x.size(0) == 0) {
    return at::zeros({tables.kernels(), 1, small_kernel, small_kernel}, x.options());
  }
  return run_grad_weight(grads, x.contiguous(), kept, tables.pattern);
}

Tensor cross_conv2d(const Tensor& x, const Tensor& wide, const Tensor& tall,
                    const OptionalTensor& bias) {
  check_floating(x, "x");
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) >= 1 && x.size(2) >= 1 && x.size(3) >= 1,
                    "x must be [B, C, H, W] with C, H, W >= 1, got ", x.sizes());
  const int64_t channels = x.size(1);
  for (const Tensor* arm : {&wide, &tall}) {
    const char* name = arm == &wide ? "wide" : "tall";
    TORCH_CHECK_VALUE(arm->dim() == 3 && arm->size(0) == channels && arm->size(1) % 2 == 1 &&
                          arm->size(2) % 2 == 1 && arm->size(2) == wide.size(2),
                      name, " must be [", channels,
                      ", taps, N] with odd taps and N, N the same for both arms, got ",
                      arm->sizes());
    check_fits(*arm, name, x, arm->sizes());
  }
  if (bias.has_value()) check_fits(*bias, "bias", x, {channels});
  if (x.size(0) == 0) return at::empty(x.sizes(), x.options());
  const c10::DeviceGuard guard(x.device());
  return run_cross(x.contiguous(), wide.contiguous(), tall.contiguous(),
                   bias.has_value() ? OptionalTensor(bias->contiguous()) : bias);
}

namespace {

std::string compiled_for_torch() { return TORCH_VERSION; }

void define(torch::Library& library) {
  const std::string tables =
      "Tensor shift_hv, Tensor identity_index, int big_kernel, int small_kernel)";
  const std::string grads = "(Tensor grad_h, Tensor grad_v, Tensor grad_i, ";
  const std::string outputs = " -> (Tensor, Tensor, Tensor)";
  const auto def = [&](const std::string& schema) {
    library.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  def("shift_add(Tensor conv_out, " + tables + outputs);
  def("shift_add_grad" + grads + tables + " -> Tensor");
  def("shift_wise_conv2d(Tensor x, Tensor weight, Tensor? mask, " + tables + outputs);
  def("shift_wise_conv2d_grad_input" + grads + "Tensor weight, Tensor? mask, " + tables +
      " -> Tensor");
  def("shift_wise_conv2d_grad_weight" + grads + "Tensor x, Tensor? mask, " + tables + " -> Tensor");
  def("cross_conv2d(Tensor x, Tensor wide, Tensor tall, Tensor? bias) -> Tensor");
  library.def("compiled_for_torch", &compiled_for_torch);
}

MMSW_EXPAND(TORCH_LIBRARY, MMSW_LIBRARY, library) { define(library); }

TORCH_LIBRARY_IMPL(MMSW_LIBRARY, MMSW_KEY, library) {
#define MMSW_KERNEL(NAME) library.impl(#NAME, &NAME);
  MMSW_EVERY_OPERATOR(MMSW_KERNEL)
}

}  // namespace
}  // namespace mmsw
