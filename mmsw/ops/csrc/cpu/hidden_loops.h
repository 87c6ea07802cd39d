// One pass over a row of a map of hidden units: bias, GELU, and the sum of squares; and the pass
// back. A row holds one unit of one sample at every position.
#pragma once

#include "copy_loops.h"
#include "gelu.h"

namespace mmsw {
namespace {

// So many vectors at once that no multiply-add waits for the one before.
constexpr int gelu_vectors = MMSW_REGISTERS >= 32 ? 8 : 6;

// Copies less than 2 * Most values; a call of memcpy would take longer than the rest of a short
// row.
template <int Most, typename S>
MMSW_INLINE void copy_few(const S* from, int64_t count, S* to) {
  if (count & Most) {
    __builtin_memcpy(to, from, Most * sizeof(S));
    from += Most;
    to += Most;
  }
  if constexpr (Most > 1) copy_few<Most / 2>(from, count, to);
}

// Memory for the end of a row, which is shorter than a vector.
template <typename S>
struct End {
  S values[lanes<float>] = {};
  int64_t count;

  MMSW_INLINE End(const S* from, int64_t count) : count(count) {
    copy_few<lanes<float> / 2>(from, count, values);
  }
  MMSW_INLINE void write(S* to) const { copy_few<lanes<float> / 2>(values, count, to); }
};

// out = GELU of in + bias, its squares to be added up.
template <typename S>
struct Forward {
  const S* in;
  S* out;
  float bias;

  template <int Count>
  MMSW_INLINE void run(int64_t at, Floats (&sums)[2]) const {
    Floats x[Count];
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) x[i] = load_wide(in + at + i * lanes<float>) + bias;
    gelu<false>(x, x);
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) {
      sums[i % 2] += x[i] * x[i];
      store_narrow(out + at + i * lanes<float>, x[i]);
    }
  }

  MMSW_INLINE Floats end(int64_t at, int64_t rest) const {
    End<S> some(in + at, rest);
    Floats x[] = {load_wide(some.values) + bias};
    gelu<false>(x, x);
    store_narrow(some.values, x[0]);
    some.write(out + at);
    return x[0] * x[0];
  }
};

// grad = (grad + factor * y) * slope, with y = GELU of in + bias; to be added up.
template <typename S>
struct Backward {
  const S* in;
  S* grad;
  float bias, factor;

  template <int Count>
  MMSW_INLINE void run(int64_t at, Floats (&sums)[2]) const {
    Floats x[Count], slope[Count];
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) x[i] = load_wide(in + at + i * lanes<float>) + bias;
    gelu<true>(x, slope);
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) {
      S* to = grad + at + i * lanes<float>;
      x[i] = (load_wide(to) + x[i] * factor) * slope[i];
      sums[i % 2] += x[i];
      store_narrow(to, x[i]);
    }
  }

  MMSW_INLINE Floats end(int64_t at, int64_t rest) const {
    End<S> some(grad + at, rest);
    Floats x[] = {load_wide(End<S>(in + at, rest).values) + bias}, slope[1];
    gelu<true>(x, slope);
    x[0] = (load_wide(some.values) + x[0] * factor) * slope[0];
    store_narrow(some.values, x[0]);
    some.write(grad + at);
    return x[0];
  }
};

// Runs a pass over a row and adds up what it is to add: parts of a few thousand in float, their sum
// in double. Values are those before they are rounded to S.
template <int Count, typename Pass>
MMSW_INLINE double run_row(int64_t count, const Pass& pass) {
  constexpr int64_t one = lanes<float>;
  double total = 0;
  for (int64_t at = 0; at < count;) {
    Floats sums[2] = {};
    const int64_t part = at + 32 * Count * one, end = part < count ? part : count;
    for (; at + Count * one <= end; at += Count * one) pass.template run<Count>(at, sums);
    for (; at + 2 * one <= end; at += 2 * one) pass.template run<2>(at, sums);
    for (; at + one <= end; at += one) pass.template run<1>(at, sums);
    if (at < end) sums[1] += keep_lanes(pass.end(at, end - at), end - at);
    at = end;
    sums[0] += sums[1];
    float sum = 0;
    for (int i = 0; i < lanes<float>; ++i) sum += sums[0][i];
    total += sum;
  }
  return total;
}

template <typename T, typename S>
T bias_gelu(const S* in, S* out, int64_t count, T bias) {
  if constexpr (sizeof(S) == sizeof(double)) {
    double total = 0;
    for (int64_t at = 0; at < count; ++at) {
      out[at] = gelu(in[at] + bias);
      total += out[at] * out[at];
    }
    return total;
  } else {
    return static_cast<T>(run_row<gelu_vectors>(count, Forward<S>{in, out, bias}));
  }
}

template <typename T, typename S>
T gelu_grad(const S* in, S* grad, int64_t count, T bias, T factor) {
  if constexpr (sizeof(S) == sizeof(double)) {
    double total = 0;
    for (int64_t at = 0; at < count; ++at) {
      const double x = in[at] + bias;
      grad[at] = (grad[at] + factor * gelu(x)) * gelu_slope(x);
      total += grad[at];
    }
    return total;
  } else {
    return static_cast<T>(run_row<gelu_vectors / 2>(count, Backward<S>{in, grad, bias, factor}));
  }
}

template <typename T, typename S>
constexpr HiddenKernels<T, S> hidden_kernels() {
  return {bias_gelu<T, S>, gelu_grad<T, S>};
}

}  // namespace
}  // namespace mmsw
