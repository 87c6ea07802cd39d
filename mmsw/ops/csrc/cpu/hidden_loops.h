// One pass over a row of a map of hidden units, in place: what comes before GELU, GELU itself, and
// the sum of squares. A row holds one unit of one sample at every position.
//
// GELU of x is relu(x) - t * 2 ** p(t) with t = |x|, where p is a polynomial near the logarithm of
// the upper tail of the normal distribution. So values far below zero keep their digits, which
// x * (1 + erf(x / sqrt 2)) / 2 loses.
#pragma once

#include "copy_loops.h"
#include "simd.h"

namespace mmsw {
namespace {

// So many vectors at once that no multiply-add waits for the one before.
constexpr int gelu_vectors = MMSW_REGISTERS >= 32 ? 8 : 6;

// Powers of t from the tenth down to the first; the constant is -1. Off by less than 1e-7 (relative
// to the tail) up to t = 1, 3e-7 up to 3, 2e-6 up to 5, 1e-5 up to 6. From `gelu_end` on, where it
// is -127, the tail is zero.
constexpr float log_tail[] = {-1.87659431e-08f, 6.02033369e-07f, -8.22748493e-06f, 6.05838871e-05f,
                              -0.000225416031f, -0.00011126581f, 0.0070803878f,    -0.0525285314f,
                              -0.45919402f,     -1.1511069f};
constexpr float gelu_end = 11.62f;
// Powers of f from the sixth down to the first; the constant is 1. 2 ** f, off by 2e-9, for f in
// [-1/2, 1/2].
constexpr float power_of_two[] = {0.00015353347f, 0.00133988744f, 0.00961843741f,
                                  0.0555033247f,  0.240226479f,   0.693147203f};
// Added to a number below 0, it leaves the nearest integer, plus the bias of an exponent, in the
// last bits.
constexpr float round_to_exponent = 12582912.0f + 127.0f;

// x * (1 + erf(x / sqrt 2)) / 2; NaN for -infinity, as there.
template <int Count>
MMSW_INLINE void gelu(Floats (&x)[Count]) {
  Floats size[Count], power[Count], sum[Count];
#define MMSW_EACH _Pragma("GCC unroll 8") for (int i = 0; i < Count; ++i)
  MMSW_EACH {
    size[i] = reinterpret_cast<Floats>(reinterpret_cast<Bits>(x[i]) & 0x7fffffffu);
    x[i] = x[i] * 0.5f + size[i] * 0.5f;
    size[i] = size[i] < gelu_end ? size[i] : splat(gelu_end);
    power[i] = splat(log_tail[0]);
  }
#pragma GCC unroll 16
  for (int k = 1; k < 10; ++k) MMSW_EACH power[i] = power[i] * size[i] + log_tail[k];
  MMSW_EACH {
    power[i] = power[i] * size[i] - 1.0f;
    const Floats exponent = power[i] + round_to_exponent;
    power[i] -= exponent - round_to_exponent;
    size[i] *= reinterpret_cast<Floats>(reinterpret_cast<Bits>(exponent) << 23);
    sum[i] = splat(power_of_two[0]);
  }
#pragma GCC unroll 16
  for (int k = 1; k < 6; ++k) MMSW_EACH sum[i] = sum[i] * power[i] + power_of_two[k];
  MMSW_EACH x[i] -= (sum[i] * power[i] + 1.0f) * size[i];
#undef MMSW_EACH
}

MMSW_INLINE double gelu(double x) { return 0.5 * x * __builtin_erfc(x * -0.70710678118654752440); }

// What comes before GELU.
template <typename T>
struct AddBias {
  T bias;
  template <typename Value>
  MMSW_INLINE Value operator()(Value value, int64_t) const {
    return value + bias;
  }
  MMSW_INLINE AddBias end(int64_t, int64_t, T (&)[2][lanes<T>]) const { return *this; }
};

template <typename T>
struct Normalise {
  const T *mean, *rstd;  // per position
  T column, bias;
  MMSW_INLINE double operator()(double value, int64_t at) const {
    return rstd[at] * (value - column * mean[at]) + bias;
  }
  MMSW_INLINE Floats operator()(Floats value, int64_t at) const {
    return load(rstd + at) * (value - column * load(mean + at)) + bias;
  }
  // The same for the positions from `at` on, as many as are left, copied to `memory`.
  MMSW_INLINE Normalise end(int64_t at, int64_t rest, T (&memory)[2][lanes<T>]) const {
    __builtin_memcpy(memory[0], mean + at, rest * sizeof(T));
    __builtin_memcpy(memory[1], rstd + at, rest * sizeof(T));
    return {memory[0], memory[1], column, bias};
  }
};

// `Count` vectors; adds the squares of the results to `squares`.
template <int Count, typename S, typename Before>
MMSW_INLINE void gelu_at(S* row, int64_t at, const Before& before, Floats (&squares)[2]) {
  Floats x[Count];
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) {
    x[i] = before(load_wide(row + at + i * lanes<float>), at + i * lanes<float>);
  }
  gelu(x);
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) {
    squares[i % 2] += x[i] * x[i];
    store_narrow(row + at + i * lanes<float>, x[i]);
  }
}

// The last positions of a row, fewer than a vector has lanes.
template <typename S, typename Before>
MMSW_INLINE Floats gelu_end_of(S* row, int64_t at, int64_t rest, const Before& before) {
  S some[lanes<float>] = {};
  float memory[2][lanes<float>] = {};
  __builtin_memcpy(some, row + at, rest * sizeof(S));
  Floats x[] = {before.end(at, rest, memory)(load_wide(some), 0)};
  gelu(x);
  store_narrow(some, x[0]);
  __builtin_memcpy(row + at, some, rest * sizeof(S));
  return keep_lanes(x[0] * x[0], rest);
}

// GELU of before(row), in place. Returns the sum of the squares before they are rounded to S: parts
// of a few thousand in float, their sum in double.
template <typename S, typename Before>
MMSW_INLINE double gelu_row(S* row, int64_t count, const Before& before) {
  constexpr int64_t group = gelu_vectors * lanes<float>;
  double total = 0;
  for (int64_t at = 0; at < count;) {
    Floats squares[2] = {};
    const int64_t part = at + 32 * group, end = part < count ? part : count;
    for (; at + group <= end; at += group) gelu_at<gelu_vectors>(row, at, before, squares);
    for (; at + lanes<float> <= end; at += lanes<float>) gelu_at<1>(row, at, before, squares);
    if (at < end) squares[1] += gelu_end_of(row, at, end - at, before);
    at = end;
    squares[0] += squares[1];
    float sum = 0;
    for (int i = 0; i < lanes<float>; ++i) sum += squares[0][i];
    total += sum;
  }
  return total;
}

template <typename Before>
MMSW_INLINE double gelu_row(double* row, int64_t count, const Before& before) {
  double total = 0;
  for (int64_t at = 0; at < count; ++at) {
    row[at] = gelu(before(row[at], at));
    total += row[at] * row[at];
  }
  return total;
}

template <typename T, typename S>
T bias_gelu(S* row, int64_t count, T bias) {
  return static_cast<T>(gelu_row(row, count, AddBias<T>{bias}));
}

template <typename T, typename S>
void norm_gelu(S* row, int64_t count, const T* mean, const T* rstd, T column, T bias) {
  gelu_row(row, count, Normalise<T>{mean, rstd, column, bias});
}

template <typename T, typename S>
constexpr HiddenKernels<T, S> hidden_kernels() {
  return {bias_gelu<T, S>, norm_gelu<T, S>};
}

}  // namespace
}  // namespace mmsw
