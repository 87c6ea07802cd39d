// The weight gradient of an arm over one plane, in tiles of taps that keep their sums in registers.
//
// A sum belongs to one tap and is a vector of neighbouring columns. It is added to column of
// vectors by column of vectors and row by row, whatever the tile: so which taps share a tile
// changes no bit, and taps that nobody asks for can be left out.
#pragma once

#include "copy_loops.h"
#include "simd.h"

namespace mmsw {
namespace {

// Taps x Columns sums; Rows rows of the map's gradient meet each loaded row of the map at once.
template <typename T, int Taps, int Columns, int Rows>
MMSW_INLINE void grad_tile(Plane<const T> map, Plane<const T> grad_out, int64_t first,
                           int64_t column, int64_t taps, int64_t side, T* sums) {
  using V = typename Simd<T>::V;
  V sum[Taps][Columns];
#pragma GCC unroll 16
  for (int tap = 0; tap < Taps; ++tap) {
#pragma GCC unroll 8
    for (int n = 0; n < Columns; ++n) {
      sum[tap][n] = tap < taps ? load(sums + (tap * side + column + n) * lanes<T>) : V{};
    }
  }
  const int64_t before = -(first + Taps - 1), from = before > 0 ? before : 0;
  const int64_t end = first > 0 ? map.height - first : map.height;
  for (int64_t x = 0; x < map.width; x += lanes<T>) {
    for (int64_t y = from; y < end; y += Rows) {
      V g[Rows];
#pragma GCC unroll 8
      for (int row = 0; row < Rows; ++row) {
        g[row] = load(grad_out.data + (y + row) * grad_out.stride + x);
      }
      const T* line = map.data + (y + first) * map.stride + x + column - side / 2;
#pragma GCC unroll 32
      for (int i = 0; i < Taps + Rows - 1; ++i, line += map.stride) {
        asm("" : "+r"(line));  // one running address instead of one per line
#pragma GCC unroll 8
        for (int n = 0; n < Columns; ++n) {
          V value = load(line + n);
          MMSW_KEEP(value);
#pragma GCC unroll 8
          for (int row = 0; row < Rows; ++row) {
            const int tap = i - row;
            if (tap >= 0 && tap < Taps) sum[tap][n] += g[row] * value;
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int tap = 0; tap < Taps; ++tap) {
    if (tap >= taps) continue;
#pragma GCC unroll 8
    for (int n = 0; n < Columns; ++n) {
      store(sums + (tap * side + column + n) * lanes<T>, sum[tap][n]);
    }
  }
}

// Tiles while at least AtLeast taps are left; returns how many were done.
template <typename T, int Taps, int Columns, int Rows, int AtLeast = Taps>
int64_t grad_tiles(Plane<const T> map, Plane<const T> grad_out, int64_t first, int64_t taps,
                   int64_t side, T* sums) {
  int64_t tap = 0;
  for (; taps - tap >= AtLeast; tap += Taps) {
    // taps that only ever read the frame have no gradient
    if (first + tap >= map.height || first + tap + Taps <= -map.height) continue;
    for (int64_t column = 0; column < side; column += Columns) {
      grad_tile<T, Taps, Columns, Rows>(map, grad_out, first + tap, column, taps - tap, side,
                                        sums + tap * side * lanes<T>);
    }
  }
  return tap;
}

// The numbers of taps here are multiples of the side, as slots are; any other side is cut anyhow.
template <typename T>
void correlate_grad(Plane<const T> map, Plane<const T> grad_out, int64_t first, int64_t taps,
                    int64_t side, T* sums) {
  constexpr bool many = MMSW_REGISTERS >= 32;
  int64_t done = 0;
  if (side == 3) {
    if (many) {
      done = grad_tiles<T, 6, 3, 8>(map, grad_out, first, taps, side, sums);
    } else if (map.height >= 64) {
      done = grad_tiles<T, 9, 1, 5>(map, grad_out, first, taps, side, sums);
    }
    done += grad_tiles<T, 3, 3, many ? 8 : 4>(map, grad_out, first + done, taps - done, side,
                                              sums + done * side * lanes<T>);
  } else if (side == 5) {
    done = grad_tiles<T, many ? 5 : 10, many ? 5 : 1, 4>(map, grad_out, first, taps, side, sums);
  }
  grad_tiles<T, 8, 1, 4, 1>(map, grad_out, first + done, taps - done, side,
                            sums + done * side * lanes<T>);
}

template <typename T>
MMSW_INLINE T sum_lanes(typename Simd<T>::V vector) {
  T total[lanes<T>];
  store(total, vector);
#pragma GCC unroll 16
  for (int64_t half = lanes<T> / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) total[lane] += total[lane + half];
  }
  return total[0];
}

template <typename T>
void reduce(const T* sums, int64_t count, T* out) {
  int64_t i = 0;
  if constexpr (sizeof(T) == sizeof(float)) {  // as many at once as there are lanes, in equal order
    for (; i + lanes<T> <= count; i += lanes<T>) {
      Floats part[lanes<T>];
#pragma GCC unroll 16
      for (int row = 0; row < lanes<T>; ++row) part[row] = load(sums + (i + row) * lanes<T>);
#pragma GCC unroll 4
      for (int64_t half = lanes<T> / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
        for (int64_t row = 0; row < half; ++row) {
          part[row] = interleave_low(part[row], part[row + half]) +
                      interleave_high(part[row], part[row + half]);
        }
      }
      store(out + i, part[0]);
    }
  }
  for (; i < count; ++i) out[i] = sum_lanes<T>(load(sums + i * lanes<T>));
}

}  // namespace
}  // namespace mmsw
