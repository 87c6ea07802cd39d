// GELU with the error function, and its slope, of vectors of floats and of one double.
//
// GELU of x is relu(x) - t * 2 ** p(t) with t = |x|, where p is a polynomial near the logarithm of
// the upper tail of the normal distribution. So values far below zero keep their digits, which
// x * (1 + erf(x / sqrt 2)) / 2 loses.
#pragma once

#include "simd.h"

namespace mmsw {
namespace {

#define MMSW_EACH _Pragma("GCC unroll 8") for (int i = 0; i < Count; ++i)

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
// Powers of t from the tenth down to the first; the constant is -1. The slope of t times the tail
// is minus the tail times this, off by 4e-8.
constexpr float slope_by_tail[] = {
    1.8066688e-07f,  -4.92256017e-06f, 5.64849733e-05f, -0.000346665237f, 0.00108132192f,
    0.000164330058f, -0.0194507484f,   0.109165582f,    0.636581947f,     0.797887705f};

// x = x * (1 + erf(x / sqrt 2)) / 2, NaN for -infinity as there. Without a slope asked for, `slope`
// is not touched.
template <bool WithSlope, int Count>
MMSW_INLINE void gelu(Floats (&x)[Count], Floats (&slope)[Count]) {
  Floats size[Count], power[Count], tail[Count];
  MMSW_EACH {
    size[i] = reinterpret_cast<Floats>(reinterpret_cast<Bits>(x[i]) & 0x7fffffffu);
    x[i] = x[i] * 0.5f + size[i] * 0.5f;  // relu
    size[i] = size[i] < gelu_end ? size[i] : splat(gelu_end);
    power[i] = splat(log_tail[0]);
  }
#pragma GCC unroll 16
  for (int k = 1; k < 10; ++k) MMSW_EACH power[i] = power[i] * size[i] + log_tail[k];
  MMSW_EACH power[i] = power[i] * size[i] - 1.0f;
  if constexpr (WithSlope) {
    MMSW_EACH slope[i] = splat(slope_by_tail[0]);
#pragma GCC unroll 16
    for (int k = 1; k < 10; ++k) MMSW_EACH slope[i] = slope[i] * size[i] + slope_by_tail[k];
    MMSW_EACH slope[i] = slope[i] * size[i] - 1.0f;
  }
  MMSW_EACH {  // the tail is this power of two, times one of a fraction
    const Floats exponent = power[i] + round_to_exponent;
    power[i] -= exponent - round_to_exponent;
    const Floats scale = reinterpret_cast<Floats>(reinterpret_cast<Bits>(exponent) << 23);
    size[i] *= scale;
    if constexpr (WithSlope) slope[i] *= scale;
    tail[i] = splat(power_of_two[0]);
  }
#pragma GCC unroll 16
  for (int k = 1; k < 6; ++k) MMSW_EACH tail[i] = tail[i] * power[i] + power_of_two[k];
  MMSW_EACH {
    tail[i] = tail[i] * power[i] + 1.0f;
    if constexpr (WithSlope) {
      slope[i] *= tail[i];
      slope[i] = x[i] > 0.0f ? slope[i] + 1.0f : -slope[i];
    }
    x[i] -= tail[i] * size[i];
  }
}

#undef MMSW_EACH

MMSW_INLINE double gelu(double x) { return 0.5 * x * __builtin_erfc(x * -0.70710678118654752440); }

MMSW_INLINE double gelu_slope(double x) {
  return 0.5 * __builtin_erfc(x * -0.70710678118654752440) +
         x * 0.39894228040143267794 * __builtin_exp(-0.5 * x * x);
}

}  // namespace
}  // namespace mmsw
