// How many thread blocks a launch gets; and what runs over single values, one thread each.
#pragma once

#include <cstdint>

#ifdef __CUDACC__

namespace mmsw {

// Thread blocks walk over the work with the stride of the grid, so any amount of it fits a launch.
inline unsigned grid_size(int64_t work) {
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
  return static_cast<unsigned>(work < kMostBlocks ? work : kMostBlocks);
}

constexpr int kElementThreads = 256;

inline unsigned element_blocks(int64_t count) {
  return grid_size((count + kElementThreads - 1) / kElementThreads);
}

template <typename Program>
__device__ __forceinline__ void for_each(int64_t count, Program program) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    program(i);
  }
}

}  // namespace mmsw

#endif
