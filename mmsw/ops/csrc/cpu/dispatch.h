// From the type that a tensor holds to a function template.
#pragma once

#include <ATen/core/Tensor.h>

#define MMSW_DISPATCH(TENSOR, FUNCTION, ...)                                        \
  ((TENSOR).scalar_type() == at::kDouble     ? FUNCTION<double>(__VA_ARGS__)        \
   : (TENSOR).scalar_type() == at::kHalf     ? FUNCTION<c10::Half>(__VA_ARGS__)     \
   : (TENSOR).scalar_type() == at::kBFloat16 ? FUNCTION<c10::BFloat16>(__VA_ARGS__) \
                                             : FUNCTION<float>(__VA_ARGS__))
