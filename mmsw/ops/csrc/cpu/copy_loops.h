// Copies of maps: upright or transposed, between what is stored and what is computed in.
#pragma once

#include <type_traits>

#include "simd.h"

namespace mmsw {
namespace {

// One value, for the ends of rows.
template <typename In, typename Out>
MMSW_INLINE void copy_one(const In* in, Out* out) {
  if constexpr (sizeof(In) == sizeof(Out)) {
    *out = *in;
  } else if constexpr (sizeof(In) < sizeof(Out)) {
    *out = widened(Bits{in->bits}, in)[0];
  } else {
    out->bits = static_cast<uint16_t>(narrowed(Floats{*in}, out)[0]);
  }
}

// The first `count` lanes of a vector, zeros after them.
MMSW_INLINE Floats keep_lanes(Floats value, int64_t count) {
  Signed lane;
  for (int i = 0; i < lanes<float>; ++i) lane[i] = i;
  return reinterpret_cast<Floats>(reinterpret_cast<Signed>(value) &
                                  (lane < static_cast<int32_t>(count)));
}

// The end of a row is copied as a whole vector where that stays inside the map that is read; what
// lies beyond it is written as zeros into a frame (Widen), or else is written again with the next
// row, where the map that is written has no gaps.
template <typename T, bool Widen, typename In, typename Out>
void copy_map(const In* in, int64_t in_stride, int64_t height, int64_t width, Out* out,
              int64_t out_stride) {
  const int64_t whole = width / lanes<T> * lanes<T>, rest = width - whole;
  const int64_t stride = Widen ? in_stride : out_stride;
  int64_t left = std::is_same_v<T, float> && rest > 0 && stride == width ? height * width : 0;
  for (int64_t y = 0; y < height; ++y, in += in_stride, out += out_stride, left -= width) {
    for (int64_t x = 0; x < whole; x += lanes<T>) store_narrow(out + x, load_wide(in + x));
    if constexpr (std::is_same_v<T, float>) {
      if (left >= whole + lanes<T>) {
        const Floats end = load_wide(in + whole);
        store_narrow(out + whole, Widen ? keep_lanes(end, rest) : end);
        continue;
      }
    }
    for (int64_t x = whole; x < width; ++x) copy_one(in + x, out + x);
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
  if constexpr (lanes<float> == 8 && std::is_same_v<In, float> && std::is_same_v<Out, float>) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const int y = part / 2 * 4, x = part % 2 * 4;
      Four square[4];
#pragma GCC unroll 4
      for (int row = 0; row < 4; ++row) square[row] = load_four(in + (y + row) * in_stride + x);
      transpose_four(square);
#pragma GCC unroll 4
      for (int row = 0; row < 4; ++row) store_four(out + (x + row) * out_stride + y, square[row]);
    }
    return;
  }
  constexpr int side = lanes<float>;
  Floats square[side];
#pragma GCC unroll 16
  for (int row = 0; row < side; ++row) square[row] = load_wide(in + row * in_stride);
  transpose_vectors(square);
#pragma GCC unroll 16
  for (int row = 0; row < side; ++row) store_narrow(out + row * out_stride, square[row]);
}

template <typename In, typename Out>
void transpose_part(const In* in, int64_t in_stride, int64_t y0, int64_t y1, int64_t x0, int64_t x1,
                    Out* out, int64_t out_stride) {
  for (int64_t y = y0; y < y1; ++y) {
    for (int64_t x = x0; x < x1; ++x) copy_one(in + y * in_stride + x, out + x * out_stride + y);
  }
}

template <typename In, typename Out>
void transpose_map(const In* in, int64_t in_stride, int64_t height, int64_t width, Out* out,
                   int64_t out_stride) {
  constexpr int64_t side = lanes<float>;
  int64_t rows = 0, columns = 0;
  if constexpr (!std::is_same_v<In, double>) {
    rows = height / side * side, columns = width / side * side;
    for (int64_t y = 0; y < rows; y += side) {
      for (int64_t x = 0; x < columns; x += side) {
        transpose_square(in + y * in_stride + x, in_stride, out + x * out_stride + y, out_stride);
      }
    }
  }
  transpose_part(in, in_stride, 0, rows, columns, width, out, out_stride);
  transpose_part(in, in_stride, rows, height, 0, width, out, out_stride);
}

template <typename T, typename S>
void add(const S* in, int64_t count, T* out) {
  int64_t x = 0;
  for (; x + lanes<T> <= count; x += lanes<T>) store(out + x, load(out + x) + load_wide(in + x));
  for (; x < count; ++x) {
    T value;
    copy_one(in + x, &value);
    out[x] += value;
  }
}

template <typename T, typename S>
constexpr CopyKernels<T, S> copy_kernels() {
  return {copy_map<T, true, S, T>, transpose_map<S, T>, copy_map<T, false, T, S>,
          transpose_map<T, S>, add<T, S>};
}

}  // namespace
}  // namespace mmsw
