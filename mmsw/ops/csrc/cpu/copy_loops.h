// Copies of maps: upright or transposed, between what is stored and what is computed in.
#pragma once

#include "simd.h"

namespace mmsw {
namespace {

// Loads and stores of at most a vector, for the ends of rows.
template <typename T, typename S>
MMSW_INLINE typename Simd<T>::V load_some(const S* from, int64_t count) {
  S part[lanes<T>] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = from[i];
  return load_wide(part);
}

template <typename T, typename S>
MMSW_INLINE void store_some(S* to, typename Simd<T>::V value, int64_t count) {
  S part[lanes<T>];
  store_narrow(part, value);
  for (int64_t i = 0; i < count; ++i) to[i] = part[i];
}

template <typename T, typename In, typename Out>
void copy_map(const In* in, int64_t in_stride, int64_t height, int64_t width, Out* out,
              int64_t out_stride) {
  const int64_t whole = width / lanes<T> * lanes<T>;
  for (int64_t y = 0; y < height; ++y, in += in_stride, out += out_stride) {
    for (int64_t x = 0; x < whole; x += lanes<T>) store_narrow(out + x, load_wide(in + x));
    if (whole < width) {
      store_some<T>(out + whole, load_some<T>(in + whole, width - whole), width - whole);
    }
  }
}

// Perfect shuffle of the lanes of two vectors. As many rounds of it as there are bits in the number
// of lanes transpose a square of vectors.
#if MMSW_VECTOR_BYTES == 64
#define MMSW_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define MMSW_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif MMSW_VECTOR_BYTES == 32
#define MMSW_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define MMSW_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define MMSW_LOW 0, 4, 1, 5
#define MMSW_HIGH 2, 6, 3, 7
#endif

MMSW_INLINE Floats interleave_low(Floats a, Floats b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, MMSW_LOW);
#else
  return __builtin_shuffle(a, b, Signed{MMSW_LOW});
#endif
}

MMSW_INLINE Floats interleave_high(Floats a, Floats b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, MMSW_HIGH);
#else
  return __builtin_shuffle(a, b, Signed{MMSW_HIGH});
#endif
}

MMSW_INLINE void transpose_vectors(Floats (&now)[lanes<float>]) {
  constexpr int side = lanes<float>;
  Floats next[side];
#pragma GCC unroll 4
  for (int round = 1; round < side; round *= 2) {
#pragma GCC unroll 16
    for (int row = 0; row < side / 2; ++row) {
      next[2 * row] = interleave_low(now[row], now[row + side / 2]);
      next[2 * row + 1] = interleave_high(now[row], now[row + side / 2]);
    }
#pragma GCC unroll 16
    for (int row = 0; row < side; ++row) now[row] = next[row];
  }
}

template <typename In, typename Out>
MMSW_INLINE void transpose_square(const In* in, int64_t in_stride, Out* out, int64_t out_stride) {
  constexpr int side = lanes<float>;
  Floats square[side];
#pragma GCC unroll 16
  for (int row = 0; row < side; ++row) square[row] = load_wide(in + row * in_stride);
  transpose_vectors(square);
#pragma GCC unroll 16
  for (int row = 0; row < side; ++row) store_narrow(out + row * out_stride, square[row]);
}

// A square that hangs over: `rows` x `columns` of it are there.
template <typename In, typename Out>
void transpose_edge(const In* in, int64_t in_stride, int64_t rows, int64_t columns, Out* out,
                    int64_t out_stride) {
  constexpr int side = lanes<float>;
  Floats square[side] = {};
  for (int64_t row = 0; row < rows; ++row) {
    square[row] = columns == side ? load_wide(in + row * in_stride)
                                  : load_some<float>(in + row * in_stride, columns);
  }
  transpose_vectors(square);
  for (int64_t row = 0; row < columns; ++row) {
    if (rows == side) {
      store_narrow(out + row * out_stride, square[row]);
    } else {
      store_some<float>(out + row * out_stride, square[row], rows);
    }
  }
}

template <typename T, typename In, typename Out>
void transpose_map(const In* in, int64_t in_stride, int64_t height, int64_t width, Out* out,
                   int64_t out_stride) {
  constexpr int64_t side = lanes<float>;
  for (int64_t y = 0; y < height; y += side) {
    for (int64_t x = 0; x < width; x += side) {
      const In* from = in + y * in_stride + x;
      Out* to = out + x * out_stride + y;
      if (height - y >= side && width - x >= side) {
        transpose_square(from, in_stride, to, out_stride);
      } else {
        const int64_t rows = height - y < side ? height - y : side;
        const int64_t columns = width - x < side ? width - x : side;
        transpose_edge(from, in_stride, rows, columns, to, out_stride);
      }
    }
  }
}

template <>
void transpose_map<double>(const double* in, int64_t in_stride, int64_t height, int64_t width,
                           double* out, int64_t out_stride) {
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) out[x * out_stride + y] = in[y * in_stride + x];
  }
}

template <typename T, typename S>
void add(const S* in, int64_t count, T* out) {
  int64_t x = 0;
  for (; x + lanes<T> <= count; x += lanes<T>) store(out + x, load(out + x) + load_wide(in + x));
  if (x == count) return;
  typename Simd<T>::V sum = load_some<T>(out + x, count - x) + load_some<T>(in + x, count - x);
  store_some<T>(out + x, sum, count - x);
}

template <typename T, typename S>
constexpr CopyKernels<T, S> copy_kernels() {
  return {copy_map<T, S, T>, transpose_map<T, S, T>, copy_map<T, T, S>, transpose_map<T, T, S>,
          add<T, S>};
}

}  // namespace
}  // namespace mmsw
