// Register-tiled loops over one plane. Included once per instruction set, after the target has been
// chosen and with MMSW_VECTOR_BYTES, MMSW_REGISTERS, MMSW_NAME and MMSW_KERNELS defined.
// Everything is in an unnamed namespace: code for one instruction set must not be linked into
// another.
//
// A vector holds neighbouring columns. Weights are broadcast. Every loaded vector serves up to N
// rows of a tile, so that multiply-adds and not loads are the limit.
#pragma once

#include "copy_loops.h"
#include "grad_loops.h"
#include "reduced_loops.h"
#include "simd.h"

namespace mmsw {
namespace {

// Adds one block to a tile of Rows x (Columns vectors). Side 0 stands for any side: tap by tap.
template <typename T, int Side, int Rows, int Columns>
MMSW_INLINE void add_block(const T* corner, int64_t stride, const T* weight, int64_t taps,
                           int64_t side, typename Simd<T>::V (&sum)[Rows][Columns]) {
  using V = typename Simd<T>::V;
  if constexpr (Side == 0) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t n = 0; n < side; ++n) {
        const V w = splat(weight[tap * side + n]);
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
          for (int column = 0; column < Columns; ++column) {
            sum[row][column] +=
                w * load(corner + (row + tap) * stride + n + column * lanes<T>);
          }
        }
      }
    }
  } else {
    for (int n = 0; n < Side; ++n) {
      V w[Side];
#pragma GCC unroll 8
      for (int tap = 0; tap < Side; ++tap) w[tap] = splat(weight[tap * Side + n]);
      const T* from = corner + n;
#pragma GCC unroll 32
      for (int line = 0; line < Rows + Side - 1; ++line, from += stride) {
        asm("" : "+r"(from));  // one running address instead of one per line
#pragma GCC unroll 4
        for (int column = 0; column < Columns; ++column) {
          V value = load(from + column * lanes<T>);
          MMSW_KEEP(value);
#pragma GCC unroll 8
          for (int tap = 0; tap < Side; ++tap) {
            const int row = line - tap;
            if (row >= 0 && row < Rows) sum[row][column] += w[tap] * value;
          }
        }
      }
    }
  }
}

template <typename T, int Side, int Rows, int Columns>
MMSW_INLINE void correlate_tile(Plane<const T> map, const Block<T>* blocks, int64_t count,
                                int64_t taps, int64_t side, T init, bool accumulate, int64_t y, int64_t x,
                                T* out, int64_t out_stride) {
  using V = typename Simd<T>::V;
  const int64_t rows = map.height - y < Rows ? map.height - y : Rows;
  const int64_t columns = map.width - x;
  const bool whole = rows == Rows && columns >= Columns * lanes<T>;
  out += y * out_stride + x;
  V sum[Rows][Columns];
  T edge[Rows][Columns * lanes<T>];  // stands in for `out` where the tile hangs over
  if (!whole) {
    for (int row = 0; row < Rows; ++row) {
      for (int64_t column = 0; column < Columns * lanes<T>; ++column) {
        const bool inside = row < rows && column < columns;
        edge[row][column] = accumulate && inside ? out[row * out_stride + column] : init;
      }
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int column = 0; column < Columns; ++column) {
      if (!whole) {
        sum[row][column] = load(&edge[row][column * lanes<T>]);
      } else if (accumulate) {
        sum[row][column] = load(out + row * out_stride + column * lanes<T>);
      } else {
        sum[row][column] = splat(init);
      }
    }
  }
  const T* corner = map.data + y * map.stride + x - side / 2;
  for (int64_t block = 0; block < count; ++block) {
    const int64_t offset = blocks[block].offset;
    if (y + offset >= map.height || y + offset + Rows + taps - 1 <= 0) continue;
    add_block<T, Side, Rows, Columns>(corner + offset * map.stride, map.stride,
                                      blocks[block].weight, taps, side, sum);
  }
  if (whole) {
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
      for (int column = 0; column < Columns; ++column) {
        store(out + row * out_stride + column * lanes<T>, sum[row][column]);
      }
    }
    return;
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int column = 0; column < Columns; ++column) {
      store(&edge[row][column * lanes<T>], sum[row][column]);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns && column < Columns * lanes<T>; ++column) {
      out[row * out_stride + column] = edge[row][column];
    }
  }
}

// Tiles of Columns vectors from column x on, as long as they are needed; returns the next column.
template <typename T, int Side, int Rows, int Columns>
int64_t correlate_columns(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t taps,
                          int64_t side, T init, bool accumulate, int64_t x, T* out, int64_t out_stride) {
  for (; map.width - x > (Columns - 1) * lanes<T>; x += Columns * lanes<T>) {
    for (int64_t y = 0; y < map.height; y += Rows) {
      correlate_tile<T, Side, Rows, Columns>(map, blocks, count, taps, side, init, accumulate, y, x,
                                             out, out_stride);
    }
  }
  return x;
}

template <typename T, int Side>
void correlate_side(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t taps,
                    int64_t side, T init, bool accumulate, T* out, int64_t out_stride) {
  constexpr int rows = MMSW_REGISTERS >= 32 ? 8 : 4;
  int64_t x = correlate_columns<T, Side, rows, 2>(map, blocks, count, taps, side, init, accumulate, 0,
                                                  out, out_stride);
  // What is left is one vector wide. Tall tiles keep as many sums as wide ones; on a low map their
  // last rows would be wasted.
  if (map.height % (2 * rows) == 0 || map.height % (2 * rows) > rows) {
    correlate_columns<T, Side, 2 * rows, 1>(map, blocks, count, taps, side, init, accumulate, x, out,
                                            out_stride);
  } else {
    correlate_columns<T, Side, rows, 1>(map, blocks, count, taps, side, init, accumulate, x, out,
                                        out_stride);
  }
}

template <typename T>
void correlate(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t side, T init,
               bool accumulate, T* out, int64_t out_stride) {
  switch (side) {
    case 3:
      return correlate_side<T, 3>(map, blocks, count, side, side, init, accumulate, out, out_stride);
    case 5:
      return correlate_side<T, 5>(map, blocks, count, side, side, init, accumulate, out, out_stride);
    default:
      return correlate_side<T, 0>(map, blocks, count, side, side, init, accumulate, out, out_stride);
  }
}

template <typename T>
void add_taps(Plane<const T> map, Block<T> block, int64_t taps, int64_t side, T* out,
              int64_t out_stride) {
  correlate_side<T, 0>(map, &block, 1, taps, side, 0, true, out, out_stride);
}

template <typename T>
constexpr PlaneKernels<T> plane_kernels() {
  return {correlate<T>, add_taps<T>, correlate_grad<T>, reduce<T>};
}

}  // namespace

const InstructionSet& MMSW_KERNELS() {
  static const InstructionSet set{MMSW_NAME,
                                  MMSW_VECTOR_BYTES,
                                  plane_kernels<float>(),
                                  plane_kernels<double>(),
                                  copy_kernels<float, float>(),
                                  copy_kernels<double, double>(),
                                  copy_kernels<float, Half>(),
                                  copy_kernels<float, BFloat16>(),
                                  reduced_kernels()};
  return set;
}

}  // namespace mmsw
