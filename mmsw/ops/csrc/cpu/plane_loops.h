// Register-tiled loops over one plane. Included once per instruction set, after the target has been
// chosen and with MMSW_VECTOR_BYTES, MMSW_REGISTERS, MMSW_NAME and MMSW_KERNELS defined.
// Everything is in an unnamed namespace: code for one instruction set must not be linked into
// another.
//
// A vector holds neighbouring columns. Weights are broadcast. Every loaded vector serves up to N
// rows of a tile, so that multiply-adds and not loads are the limit.
#pragma once

#include "channel_loops.h"
#include "copy_loops.h"
#include "grad_loops.h"
#include "hidden_loops.h"
#include "reduced_loops.h"
#include "row_loops.h"
#include "simd.h"
#include "strip_loops.h"
#include "tiles.h"

namespace mmsw {
namespace {

// What `correlate` and `add_taps` are asked for.
template <typename T>
struct Correlation {
  Plane<const T> map;
  const Block<T>* blocks;
  int64_t count, taps, side;
  T init;
  bool accumulate;
  T* out;
  int64_t out_stride;
};

// Adds one block to a tile, for any side and any number of taps, tap by tap.
template <typename T, int Rows, int Columns>
MMSW_INLINE void add_any_block(const T* corner, int64_t stride, const T* weight, int64_t taps,
                               int64_t side, typename Simd<T>::V (&sum)[Rows][Columns]) {
  for (int64_t tap = 0; tap < taps; ++tap) {
    for (int64_t n = 0; n < side; ++n) {
      const typename Simd<T>::V w = splat(weight[tap * side + n]);
#pragma GCC unroll 16
      for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
        for (int column = 0; column < Columns; ++column) {
          sum[row][column] += w * load(corner + (row + tap) * stride + n + column * lanes<T>);
        }
      }
    }
  }
}

// Side 0 stands for any side.
template <typename T, int Side, int Rows, int Columns>
MMSW_INLINE void correlate_tile(const Correlation<T>& job, int64_t y, int64_t x) {
  const Plane<const T>& map = job.map;
  T* out = job.out + y * job.out_stride + x;
  typename Simd<T>::V sum[Rows][Columns];
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int column = 0; column < Columns; ++column) {
      sum[row][column] =
          job.accumulate ? load(out + row * job.out_stride + column * lanes<T>) : splat(job.init);
    }
  }
  const int64_t size = Rows + job.taps - 1;
  const T* corner = map.data + y * map.stride + x - job.side / 2;
  for (int64_t block = 0; block < job.count; ++block) {
    const int64_t first = y + job.blocks[block].offset, after = map.height - first;
    if (after <= 0 || first + size <= 0) continue;
    const T* from = corner + job.blocks[block].offset * map.stride;
    const T* weight = job.blocks[block].weight;
    if constexpr (Side == 0) {
      add_any_block<T>(from, map.stride, weight, job.taps, job.side, sum);
    } else if (first >= 0 && after >= size) {
      add_strip<T, Side, Rows, Columns, true>(from, map.stride, weight, Side, 0, Side, 0, sum);
    } else {
      uint32_t inside = ~0u;
      if (first < 0) inside <<= -first;
      if (after < size) inside &= (1u << after) - 1;
      add_strip<T, Side, Rows, Columns, false>(from, map.stride, weight, Side, 0, Side, inside,
                                               sum);
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

template <typename T, int Side>
void correlate_side(const Correlation<T>& job) {
  for_each_tile<T>(job.map.height, job.map.width,
                   [&](auto rows, auto columns, int64_t y, int64_t x) MMSW_INLINE_LAMBDA {
                     correlate_tile<T, Side, rows(), columns()>(job, y, x);
                   });
}

template <typename T>
void correlate(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t side, T init,
               bool accumulate, T* out, int64_t out_stride) {
  const Correlation<T> job{map, blocks, count, side, side, init, accumulate, out, out_stride};
  if (side == 3) return correlate_side<T, 3>(job);
  if (side == 5) return correlate_side<T, 5>(job);
  correlate_side<T, 0>(job);
}

template <typename T>
void add_taps(Plane<const T> map, Block<T> block, int64_t taps, int64_t side, T* out,
              int64_t out_stride) {
  correlate_side<T, 0>({map, &block, 1, taps, side, 0, true, out, out_stride});
}

template <typename T>
constexpr PlaneKernels<T> plane_kernels() {
  return {correlate<T>, add_taps<T>, correlate_strips<T>, correlate_grad<T>, reduce<T>};
}

}  // namespace

const InstructionSet& MMSW_KERNELS() {
  static const InstructionSet set{MMSW_NAME,
                                  MMSW_VECTOR_BYTES,
                                  tile_rows,
                                  tile_columns,
                                  plane_kernels<float>(),
                                  plane_kernels<double>(),
                                  copy_kernels<float, float>(),
                                  copy_kernels<double, double>(),
                                  copy_kernels<float, Half>(),
                                  copy_kernels<float, BFloat16>(),
                                  reduced_kernels(),
                                  hidden_kernels<float, float>(),
                                  hidden_kernels<double, double>(),
                                  hidden_kernels<float, Half>(),
                                  hidden_kernels<float, BFloat16>(),
                                  channel_kernels<float, float>(),
                                  channel_kernels<double, double>(),
                                  channel_kernels<float, Half>(),
                                  channel_kernels<float, BFloat16>(),
                                  row_kernels<float, float>(),
                                  row_kernels<double, double>(),
                                  row_kernels<float, Half>(),
                                  row_kernels<float, BFloat16>()};
  return set;
}

}  // namespace mmsw
