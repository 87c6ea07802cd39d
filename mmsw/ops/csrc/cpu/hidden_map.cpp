// The one pass over a map of hidden units, [B, K, P], on the CPU: operators that overwrite it.
//
// They are for inference: mmsw/ops/hidden_map.py calls plain operators where a gradient is wanted.
// Work is shared out by rows, so results do not depend on the number of threads.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <type_traits>

#include "../checks.h"
#include "dispatch.h"
#include "instruction_sets.h"
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

// The bits of rows, as kernels take them.
template <typename T, typename Bits, typename S>
Bits* row_of(const HiddenKernels<T, Bits>&, S* map) {
  return reinterpret_cast<Bits*>(map);
}

template <typename Work>
void for_each_row(const Tensor& hidden, Work work) {
  if (!hidden.is_inference()) hidden.unsafeGetTensorImpl()->bump_version();  // autograd asks for it
  constexpr int64_t values = 1 << 14;  // that a thread takes at once
  const int64_t grain = std::max<int64_t>(1, values / hidden.size(2));
  for_each(hidden.size(0) * hidden.size(1), grain, 0, [&](int64_t row, int) { work(row); });
}

template <typename S>
void run_bias_gelu(const Tensor& hidden, const Tensor& bias, const Tensor& sums) {
  const auto& kernels = hidden_kernels<S>();
  const int64_t positions = hidden.size(2), biases = bias.numel();
  auto* map = row_of(kernels, hidden.mutable_data_ptr<S>());
  const auto* from = bias.const_data_ptr<Computed<S>>();
  auto* to = sums.mutable_data_ptr<Computed<S>>();
  for_each_row(hidden, [&](int64_t row) {
    to[row] = kernels.bias_gelu(map + row * positions, positions, from[row % biases]);
  });
}

template <typename S>
void run_norm_gelu(const Tensor& hidden, const Tensor& mean, const Tensor& rstd,
                   const Tensor& column, const Tensor& bias) {
  const auto& kernels = hidden_kernels<S>();
  const int64_t units = hidden.size(1), positions = hidden.size(2);
  auto* map = row_of(kernels, hidden.mutable_data_ptr<S>());
  const auto *means = mean.const_data_ptr<Computed<S>>(),
             *rstds = rstd.const_data_ptr<Computed<S>>(),
             *columns = column.const_data_ptr<Computed<S>>(),
             *biases = bias.const_data_ptr<Computed<S>>();
  for_each_row(hidden, [&](int64_t row) {
    const int64_t at = row / units * positions, unit = row % units;
    kernels.norm_gelu(map + row * positions, positions, means + at, rstds + at, columns[unit],
                      biases[unit]);
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

// Returns the sums of squares, [B, K].
Tensor bias_gelu(Tensor& hidden, const Tensor& bias) {
  check_hidden(hidden);
  const int64_t batch = hidden.size(0), units = hidden.size(1);
  check_with(bias, "bias", hidden,
             bias.sizes() == IntArrayRef({units}) || bias.sizes() == IntArrayRef({batch, units}));
  const Tensor sums = at::zeros({batch, units}, hidden.options().dtype(computed_type(hidden)));
  if (hidden.numel() > 0) MMSW_DISPATCH(hidden, run_bias_gelu, hidden, bias, sums);
  return sums;
}

void norm_gelu(Tensor& hidden, const Tensor& mean, const Tensor& rstd, const Tensor& column,
               const Tensor& bias) {
  check_hidden(hidden);
  const int64_t batch = hidden.size(0), units = hidden.size(1), positions = hidden.size(2);
  check_with(mean, "mean", hidden, mean.sizes() == IntArrayRef({batch, positions}));
  check_with(rstd, "rstd", hidden, rstd.sizes() == IntArrayRef({batch, positions}));
  check_with(column, "column", hidden, column.sizes() == IntArrayRef({units}));
  check_with(bias, "bias", hidden, bias.sizes() == IntArrayRef({units}));
  if (hidden.numel() > 0) MMSW_DISPATCH(hidden, run_norm_gelu, hidden, mean, rstd, column, bias);
}

// What compilers need to know.
Tensor shape_of_sums(Tensor& hidden, const Tensor&) {
  return at::empty_symint({hidden.sym_size(0), hidden.sym_size(1)},
                          hidden.options().dtype(computed_type(hidden)));
}

void no_shape(Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {}

TORCH_LIBRARY_FRAGMENT(mmsw_cpp, library) {
  const auto def = [&](const char* schema) {
    library.def(torch::schema(schema), {at::Tag::pt2_compliant_tag});
  };
  def("bias_gelu_(Tensor(a!) hidden, Tensor bias) -> Tensor");
  def("norm_gelu_(Tensor(a!) hidden, Tensor mean, Tensor rstd, Tensor column, Tensor bias) -> ()");
}

TORCH_LIBRARY_IMPL(mmsw_cpp, CPU, library) {
  library.impl("bias_gelu_", &bias_gelu);
  library.impl("norm_gelu_", &norm_gelu);
}

TORCH_LIBRARY_IMPL(mmsw_cpp, Meta, library) {
  library.impl("bias_gelu_", &shape_of_sums);
  library.impl("norm_gelu_", &no_shape);
}

// No derivatives.
TORCH_LIBRARY_IMPL(mmsw_cpp, Autograd, library) {
  library.impl("bias_gelu_", torch::autograd::autogradNotImplementedFallback());
  library.impl("norm_gelu_", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace mmsw
