// How the sums of a plane are cut into tiles that stay in registers.
#pragma once

#include <type_traits>

#include "simd.h"

namespace mmsw {
namespace {

constexpr int tile_rows = MMSW_REGISTERS >= 32 ? 8 : 4;
constexpr int tile_columns = 2;

#define MMSW_INLINE_LAMBDA __attribute__((always_inline))

// Tiles of Columns vectors from column x on, while they would not hang over by a whole vector;
// returns the next column.
template <typename T, int Rows, int Columns, typename Run>
MMSW_INLINE int64_t for_each_tile_from(int64_t x, int64_t height, int64_t width, const Run& run) {
  for (; width - x > (Columns - 1) * lanes<T>; x += Columns * lanes<T>) {
    for (int64_t y = 0; y < height; y += Rows) {
      run(std::integral_constant<int, Rows>(), std::integral_constant<int, Columns>(), y, x);
    }
  }
  return x;
}

// Calls run(rows, columns in vectors, y, x) for every tile, the first two as constants.
template <typename T, typename Run>
MMSW_INLINE void for_each_tile(int64_t height, int64_t width, const Run& run) {
  const int64_t x = for_each_tile_from<T, tile_rows, tile_columns>(0, height, width, run);
  // What is left is one vector wide. Tall tiles keep as many sums as wide ones; on a low map their
  // last rows would be wasted.
  const int64_t rest = height % (2 * tile_rows);
  if (rest == 0 || rest > tile_rows) {
    for_each_tile_from<T, 2 * tile_rows, 1>(x, height, width, run);
  } else {
    for_each_tile_from<T, tile_rows, 1>(x, height, width, run);
  }
}

}  // namespace
}  // namespace mmsw
