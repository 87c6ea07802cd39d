// A kernel of any size over one plane, strip by strip. plane_loops.h says how this is included.
//
// A strip is up to five rows of the kernel, as wide as it likes: per column, its taps are held in
// registers and every loaded vector of the map serves all of them.
#pragma once

#include "simd.h"
#include "tiles.h"

namespace mmsw {
namespace {

// What `correlate_strips` is asked for.
template <typename T>
struct StripJob {
  Plane<const T> map;
  const Strip<T>* strips;
  int64_t count, weight_stride;
  T init;
  T* out;
  int64_t out_stride;
};

// Adds columns [begin, end) of a strip to a tile of Rows x (Columns vectors). Line i is map row i
// of those that the tile reads; where the strip hangs over the map, the lines outside are left out.
template <typename T, int Taps, int Rows, int Columns, bool Whole>
MMSW_INLINE void add_strip(const T* corner, int64_t stride, const T* weight, int64_t weight_stride,
                           int64_t begin, int64_t end, uint32_t lines,
                           typename Simd<T>::V (&sum)[Rows][Columns]) {
  using V = typename Simd<T>::V;
  for (int64_t n = begin; n < end; ++n) {
    V w[Taps];
#pragma GCC unroll 8
    for (int tap = 0; tap < Taps; ++tap) w[tap] = splat(weight[tap * weight_stride + n]);
    const T* from = corner + n;
#pragma GCC unroll 32
    for (int line = 0; line < Rows + Taps - 1; ++line, from += stride) {
      asm("" : "+r"(from));  // one running address instead of one per line
      if (!Whole && (lines >> line & 1) == 0) continue;
#pragma GCC unroll 4
      for (int column = 0; column < Columns; ++column) {
        V value = load(from + column * lanes<T>);
        MMSW_KEEP(value);
#pragma GCC unroll 8
        for (int tap = 0; tap < Taps; ++tap) {
          const int row = line - tap;
          if (row >= 0 && row < Rows) sum[row][column] += w[tap] * value;
        }
      }
    }
  }
}

template <typename T, int Taps, int Rows, int Columns>
MMSW_INLINE void add_strip_of(const StripJob<T>& job, const Strip<T>& strip, int64_t y, int64_t x,
                              typename Simd<T>::V (&sum)[Rows][Columns]) {
  const Plane<const T>& map = job.map;
  constexpr int size = Rows + Taps - 1;
  const int64_t first = y + strip.row, after = map.height - first, column = x + strip.column;
  if (after <= 0 || first + size <= 0) return;
  const int64_t begin = std::max<int64_t>(0, 1 - Columns * lanes<T> - column);
  const int64_t end = std::min(strip.columns, map.width - column);
  const T* corner = map.data + first * map.stride + column;
  if (first >= 0 && after >= size) {
    return add_strip<T, Taps, Rows, Columns, true>(corner, map.stride, strip.weight,
                                                   job.weight_stride, begin, end, 0, sum);
  }
  uint32_t inside = ~0u;
  if (first < 0) inside <<= -first;
  if (after < size) inside &= (1u << after) - 1;
  add_strip<T, Taps, Rows, Columns, false>(corner, map.stride, strip.weight, job.weight_stride,
                                           begin, end, inside, sum);
}

template <typename T, int Rows, int Columns>
MMSW_INLINE void correlate_strips_tile(const StripJob<T>& job, int64_t y, int64_t x) {
  T* out = job.out + y * job.out_stride + x;
  typename Simd<T>::V sum[Rows][Columns];
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int column = 0; column < Columns; ++column) sum[row][column] = splat(job.init);
  }
  for (int64_t i = 0; i < job.count; ++i) {
    const Strip<T>& strip = job.strips[i];
    switch (strip.taps) {
      case 1:
        add_strip_of<T, 1>(job, strip, y, x, sum);
        break;
      case 2:
        add_strip_of<T, 2>(job, strip, y, x, sum);
        break;
      case 3:
        add_strip_of<T, 3>(job, strip, y, x, sum);
        break;
      case 4:
        add_strip_of<T, 4>(job, strip, y, x, sum);
        break;
      case kMostTaps:
        add_strip_of<T, kMostTaps>(job, strip, y, x, sum);
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int column = 0; column < Columns; ++column) {
      store(out + row * job.out_stride + column * lanes<T>, sum[row][column]);
    }
  }
}

template <typename T>
void correlate_strips(Plane<const T> map, const Strip<T>* strips, int64_t count,
                      int64_t weight_stride, T init, T* out, int64_t out_stride) {
  const StripJob<T> job{map, strips, count, weight_stride, init, out, out_stride};
  for_each_tile<T>(map.height, map.width,
                   [&](auto rows, auto columns, int64_t y, int64_t x) MMSW_INLINE_LAMBDA {
                     correlate_strips_tile<T, rows(), columns()>(job, y, x);
                   });
}

}  // namespace
}  // namespace mmsw
