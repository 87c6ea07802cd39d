// From tensors to what the launchers take.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAStream.h>

#include "launch.h"

namespace mmsw {

using at::Tensor;

inline Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kHalf:
      return Dtype::kFloat16;
    case at::kBFloat16:
      return Dtype::kBFloat16;
    case at::kDouble:
      return Dtype::kFloat64;
    default:
      return Dtype::kFloat32;
  }
}

inline int as_int(int64_t value, const char* name) {
  TORCH_CHECK_VALUE(value < (int64_t{1} << 31), name, " must be below 2**31, got ", value);
  return static_cast<int>(value);
}

inline MapSizes map_sizes(const Tensor& map, int64_t channels, int border = 0) {
  return {as_int(map.size(0), "batch"), as_int(channels, "channels"),
          as_int(map.size(2) - border, "height"), as_int(map.size(3) - border, "width")};
}

template <typename... Sizes>
void check_limit(const char* reason, const MapSizes& map, const Sizes&... kernel) {
  TORCH_CHECK_VALUE(reason == nullptr, "the cuda backend cannot run ", kernel..., " on a map of ",
                    map.height, " x ", map.width, ": ", reason, "; use backend='torch'");
}

inline Tensor workspace(size_t bytes, const Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

inline cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

}  // namespace mmsw
