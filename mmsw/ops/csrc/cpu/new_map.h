// Memory for results.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mmsw {

// A tensor that is not filled. A large one asks for large pages: where its memory is new, first
// touches of small pages would take a fifth of the time of the fused operator.
inline at::Tensor new_map(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor map = at::empty(sizes, options);
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 1 << 16, large = 1 << 20;  // `page` is at least one of the system's
  const auto begin = reinterpret_cast<uintptr_t>(map.mutable_data_ptr()),
             end = begin + map.nbytes();
  const uintptr_t from = (begin + page - 1) / page * page, to = end / page * page;
  // Only advice: what it answers does not matter.
  if (map.nbytes() >= large) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
  return map;
}

inline at::Tensor new_map(const at::Tensor& like) { return new_map(like.sizes(), like.options()); }

}  // namespace mmsw
