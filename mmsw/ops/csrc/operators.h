// The operators of a compiled backend: what they take and return.
//
// front.cpp registers them under MMSW_KEY (CPU, CUDA), derivatives.cpp under Autograd, both in the
// library MMSW_LIBRARY (mmsw_cpp, mmsw_cuda); build_ops.py names the two.
#pragma once

#include <cstdint>

#include "backend.h"

#define MMSW_TEXT_OF(name) #name
#define MMSW_TEXT(name) MMSW_TEXT_OF(name)
// One more round of expansion: the macros of torch paste and quote the names that they get.
#define MMSW_EXPAND(macro, ...) macro(__VA_ARGS__)

// The tables of a pattern, as every operator gets them and passes them on.
#define MMSW_TABLES \
  const Tensor &shift_hv, const Tensor &identity_index, int64_t big_kernel, int64_t small_kernel
#define MMSW_PASS_TABLES shift_hv, identity_index, big_kernel, small_kernel

#define MMSW_EVERY_OPERATOR(DO)     \
  DO(shift_add)                     \
  DO(shift_add_grad)                \
  DO(shift_wise_conv2d)             \
  DO(shift_wise_conv2d_grad_input)  \
  DO(shift_wise_conv2d_grad_weight) \
  DO(cross_conv2d)

namespace mmsw {

using OptionalTensor = std::optional<Tensor>;

Outputs shift_add(const Tensor& conv_out, MMSW_TABLES);
Tensor shift_add_grad(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                      MMSW_TABLES);
Outputs shift_wise_conv2d(const Tensor& x, const Tensor& weight, const OptionalTensor& mask,
                          MMSW_TABLES);
Tensor shift_wise_conv2d_grad_input(const Tensor& grad_h, const Tensor& grad_v,
                                    const Tensor& grad_i, const Tensor& weight,
                                    const OptionalTensor& mask, MMSW_TABLES);
Tensor shift_wise_conv2d_grad_weight(const Tensor& grad_h, const Tensor& grad_v,
                                     const Tensor& grad_i, const Tensor& x,
                                     const OptionalTensor& mask, MMSW_TABLES);
Tensor cross_conv2d(const Tensor& x, const Tensor& wide, const Tensor& tall,
                    const OptionalTensor& bias);

}  // namespace mmsw
