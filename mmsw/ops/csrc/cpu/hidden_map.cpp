// The passes over a map of hidden units, [B, K, P], on the CPU.
//
// They have no derivatives: hidden_map.py calls plain operators where a gradient is wanted, and
// hidden_layer.py has a gradient of its own.
// Work is shared out by rows, so results do not depend on the number of threads.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <type_traits>

#include "../checks.h"
#include "dispatch.h"
#include "instruction_sets.h"
#include "new_map.h"
#include "parallel.h"

namespace mmsw {
namespace {

template <typename S>
const auto& hidden_kernels() {
  if constexpr (std::is_same_v<S, c10::Half>) {
    return instruction_set->hidden_f16;
  } else if constexpr (std::is_same_v<S, c10::BFloat16>) {
    return instruction_set->hidden_bf16;
  } else if constexpr (std::is_same_v<S, double>) {
    return instruction_set->hidden_f64;
  } else {
    return instruction_set->hidden_f32;
  }
}

// The values of a map, as kernels take them.
template <typename S, typename T, typename Bits>
Bits* values_of(const Tensor& map, const HiddenKernels<T, Bits>&) {
  return reinterpret_cast<Bits*>(map.mutable_data_ptr<S>());
}
template <typename S, typename T, typename Bits>
const Bits* const_values_of(const Tensor& map, const HiddenKernels<T, Bits>&) {
  return reinterpret_cast<const Bits*>(map.const_data_ptr<S>());
}

template <typename Work>
void for_each_row(const Tensor& hidden, Work work) {
  constexpr int64_t values = 1 << 14;  // that a thread takes at once
  const int64_t grain = std::max<int64_t>(1, values / hidden.size(2));
  for_each(hidden.size(0) * hidden.size(1), grain, 0, [&](int64_t row, int) { work(row); });
}

// Autograd asks for it.
void count_change(const Tensor& map) {
  if (!map.is_inference()) map.unsafeGetTensorImpl()->bump_version();
}

template <typename S>
void run_bias_gelu(const Tensor& hidden, const Tensor& bias, const Tensor& out,
                   const Tensor& sums) {
  const auto& kernels = hidden_kernels<S>();
  const int64_t positions = hidden.size(2), biases = bias.numel();
  const auto* in = const_values_of<S>(hidden, kernels);
  auto* map = values_of<S>(out, kernels);
  const auto* from = bias.const_data_ptr<Computed<S>>();
  auto* to = sums.mutable_data_ptr<Computed<S>>();
  for_each_row(hidden, [&](int64_t row) {
    const int64_t at = row * positions;
    to[row] = kernels.bias_gelu(in + at, map + at, positions, from[row % biases]);
  });
}

template <typename S>
void run_gelu_grad(const Tensor& grad, const Tensor& hidden, const Tensor& bias,
                   const Tensor& factor, const Tensor& sums) {
  const auto& kernels = hidden_kernels<S>();
  const int64_t units = hidden.size(1), positions = hidden.size(2);
  const auto* in = const_values_of<S>(hidden, kernels);
  auto* map = values_of<S>(grad, kernels);
  const auto *biases = bias.const_data_ptr<Computed<S>>(),
             *factors = factor.const_data_ptr<Computed<S>>();
  auto* to = sums.mutable_data_ptr<Computed<S>>();
  for_each_row(hidden, [&](int64_t row) {
    const int64_t at = row * positions;
    to[row] = kernels.gelu_grad(in + at, map + at, positions, biases[row % units], factors[row]);
  });
}

void check_hidden(const Tensor& hidden) {
  check_floating(hidden, "hidden");
  TORCH_CHECK_VALUE(hidden.dim() == 3 && hidden.is_contiguous(),
                    "hidden must be [B, K, P] and contiguous, got ", hidden.sizes(),
                    " with strides ", hidden.strides());
}

// What goes with a map is contiguous and of the type that is computed in.
at::ScalarType computed_type(const Tensor& hidden) {
  return hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

void check_with(const Tensor& tensor, const char* name, const Tensor& hidden, bool fits) {
  check_device(tensor, name, hidden);
  TORCH_CHECK_TYPE(tensor.scalar_type() == computed_type(hidden), name, " must hold ",
                   computed_type(hidden), ", got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(fits && tensor.is_contiguous(), name, " does not fit hidden ", hidden.sizes(),
                    " or is not contiguous, got ", tensor.sizes(), " with strides ",
                    tensor.strides());
}

Tensor zero_sums(const Tensor& hidden) {
  return at::zeros({hidden.size(0), hidden.size(1)}, hidden.options().dtype(computed_type(hidden)));
}

// Writes to `out` and returns the sums of squares, [B, K].
Tensor bias_gelu_to(const Tensor& out, const Tensor& hidden, const Tensor& bias) {
  check_hidden(hidden);
  const int64_t batch = hidden.size(0), units = hidden.size(1);
  check_with(bias, "bias", hidden,
             bias.sizes() == IntArrayRef({units}) || bias.sizes() == IntArrayRef({batch, units}));
  const Tensor sums = zero_sums(hidden);
  if (hidden.numel() > 0) MMSW_DISPATCH(hidden, run_bias_gelu, hidden, bias, out, sums);
  return sums;
}

Tensor bias_gelu_in_place(Tensor& hidden, const Tensor& bias) {
  const Tensor sums = bias_gelu_to(hidden, hidden, bias);
  count_change(hidden);
  return sums;
}

std::tuple<Tensor, Tensor> bias_gelu(const Tensor& hidden, const Tensor& bias) {
  const Tensor out = new_map(hidden);
  return {out, bias_gelu_to(out, hidden, bias)};
}

// Returns the sums, [B, K].
Tensor gelu_grad(Tensor& grad, const Tensor& hidden, const Tensor& bias, const Tensor& factor) {
  check_hidden(hidden);
  check_fits(grad, "grad", hidden, hidden.sizes());
  TORCH_CHECK_VALUE(grad.is_contiguous(), "grad must be contiguous");
  const int64_t batch = hidden.size(0), units = hidden.size(1);
  check_with(bias, "bias", hidden, bias.sizes() == IntArrayRef({units}));
  check_with(factor, "factor", hidden, factor.sizes() == IntArrayRef({batch, units}));
  const Tensor sums = zero_sums(hidden);
  if (hidden.numel() > 0) MMSW_DISPATCH(hidden, run_gelu_grad, grad, hidden, bias, factor, sums);
  count_change(grad);
  return sums;
}

// What compilers need to know.
Tensor shape_of_sums(const Tensor& hidden) {
  return at::empty_symint({hidden.sym_size(0), hidden.sym_size(1)},
                          hidden.options().dtype(computed_type(hidden)));
}

Tensor bias_gelu_in_place_shape(Tensor& hidden, const Tensor&) { return shape_of_sums(hidden); }

std::tuple<Tensor, Tensor> bias_gelu_shape(const Tensor& hidden, const Tensor&) {
  return {at::empty_like(hidden), shape_of_sums(hidden)};
}

Tensor gelu_grad_shape(Tensor& grad, const Tensor&, const Tensor&, const Tensor&) {
  return shape_of_sums(grad);
}

TORCH_LIBRARY_FRAGMENT(mmsw_cpp, library) {
  const auto def = [&](const char* schema) {
    library.def(torch::schema(schema), {at::Tag::pt2_compliant_tag});
  };
  def("bias_gelu(Tensor hidden, Tensor bias) -> (Tensor, Tensor)");
  def("bias_gelu_(Tensor(a!) hidden, Tensor bias) -> Tensor");
  def("gelu_grad_(Tensor(a!) grad, Tensor hidden, Tensor bias, Tensor factor) -> Tensor");
}

TORCH_LIBRARY_IMPL(mmsw_cpp, CPU, library) {
  library.impl("bias_gelu", &bias_gelu);
  library.impl("bias_gelu_", &bias_gelu_in_place);
  library.impl("gelu_grad_", &gelu_grad);
}

TORCH_LIBRARY_IMPL(mmsw_cpp, Meta, library) {
  library.impl("bias_gelu", &bias_gelu_shape);
  library.impl("bias_gelu_", &bias_gelu_in_place_shape);
  library.impl("gelu_grad_", &gelu_grad_shape);
}

// No derivatives.
TORCH_LIBRARY_IMPL(mmsw_cpp, Autograd, library) {
  for (const char* name : {"bias_gelu", "bias_gelu_", "gelu_grad_"}) {
    library.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace
}  // namespace mmsw
