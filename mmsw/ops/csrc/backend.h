// What a compiled backend implements. front.cpp calls it, and nobody else.
//
// All tensors are contiguous, checked against each other, not empty and on one device, which is the
// current one. They hold what the caller gave: float64, float32, float16 or bfloat16. Results are
// of that type too, and contiguous. Tables on the CPU hold a pattern; those on a GPU were not read.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "pattern.h"

namespace mmsw {

using at::Tensor;
using Outputs = std::tuple<Tensor, Tensor, Tensor>;  // horizontal, vertical, identity: [B, C, H, W]

// `conv_out` and its gradient are [B, C * nk, H + 2 * margin, W + 2 * margin].
Outputs run_shift_add(const Tensor& conv_out, const Pattern& pattern);
Tensor run_shift_add_grad(const Outputs& grads, const Pattern& pattern);

// `weight` and its gradient are [C * nk, 1, N, N]. Where `mask`, bool [C * nk], is off, the
// gradient is exactly zero and need not be computed.
Outputs run_conv(const Tensor& x, const Tensor& weight, const Pattern& pattern);
Tensor run_grad_input(const Outputs& grads, const Tensor& weight, const Pattern& pattern);
Tensor run_grad_weight(const Outputs& grads, const Tensor& x, const std::optional<Tensor>& mask,
                       const Pattern& pattern);

// Arms [C, taps, N] of any odd lengths, centred, the wide one stored transposed; `bias` is [C].
Tensor run_cross(const Tensor& x, const Tensor& wide, const Tensor& tall,
                 const std::optional<Tensor>& bias);

}  // namespace mmsw
