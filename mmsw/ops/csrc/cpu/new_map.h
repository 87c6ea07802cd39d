// Memory for results.
#pragma once

#include <ATen/core/Tensor.h>

namespace mmsw {

// A tensor as large as `like`, not filled.
at::Tensor new_map(const at::Tensor& like);

}  // namespace mmsw
