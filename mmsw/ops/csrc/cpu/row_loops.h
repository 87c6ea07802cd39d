// One pass over the same row of several maps: their means and covariances, their products with a
// gradient, and sums of them. A row holds one channel of one sample at every position.
//
// Sums run in vectors of T over a stretch of positions and are added up in double. What is summed
// are deviations from pivots near the means, so a mean that is large beside the deviations costs no
// digits.
#pragma once

#include "grad_loops.h"

namespace mmsw {
namespace {

template <typename T>
using Vector = typename Simd<T>::V;

constexpr int64_t summed_stretch = 1024;
constexpr int64_t mixed_stretch = 512;  // of all maps, it stays in the first cache

#define MMSW_EACH _Pragma("GCC unroll 8") for (int i = 0; i < N; ++i)

// The last values of a row, as the last lanes of a vector.
template <typename T, typename S>
MMSW_INLINE Vector<T> load_last(const S* row, int64_t count) {
  if (count >= lanes<T>) return load_wide(row + count - lanes<T>);
  S values[lanes<T>] = {};
  __builtin_memcpy(values + lanes<T> - count, row, count * sizeof(S));
  return load_wide(values);
}

template <typename T, typename S>
MMSW_INLINE void store_last(S* row, int64_t count, Vector<T> value) {
  if (count >= lanes<T>) return store_narrow(row + count - lanes<T>, value);
  S values[lanes<T>];
  store_narrow(values, value);
  __builtin_memcpy(row, values + lanes<T> - count, count * sizeof(S));
}

template <typename T>
MMSW_INLINE Vector<T> keep_last_lanes(Vector<T> value, int64_t count) {
  Vector<T> lane;
  for (int i = 0; i < lanes<T>; ++i) lane[i] = i;
  return lane >= static_cast<T>(lanes<T> - count) ? value : Vector<T>{};
}

// Sums of N deviations and of the products of every two of them.
template <typename T, int N>
struct PairSums {
  static constexpr int count = N + N * (N + 1) / 2;
  Vector<T> sums[count];

  MMSW_INLINE void add(const Vector<T> (&value)[N]) {
    MMSW_EACH sums[i] += value[i];
    int at = N;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
#pragma GCC unroll 8
      for (int k = 0; k <= i; ++k) sums[at++] += value[i] * value[k];
    }
  }
};

// The sum of the first of N deviations, and of its products with the others.
template <typename T, int N>
struct FirstSums {
  static constexpr int count = N;
  Vector<T> sums[count];

  MMSW_INLINE void add(const Vector<T> (&value)[N]) {
    sums[0] += value[0];
#pragma GCC unroll 8
    for (int i = 1; i < N; ++i) sums[i] += value[0] * value[i];
  }
};

// Sums over the positions from `at` to `end`: of a few vectors first, so that rounding errors stay
// small, then of those sums.
template <typename Sums, typename T, typename S, int N>
MMSW_INLINE void sum_stretch(const S* const (&rows)[N], const T (&pivot)[N], int64_t at,
                             int64_t end, double* totals) {
  constexpr int ways = Sums::count <= 6 ? 2 : 1;  // so that no addition waits for the one before
  constexpr int64_t step = ways * lanes<T>;
  Vector<T> whole[Sums::count] = {};
  while (at < end) {
    Sums sums[ways] = {};
    const auto add = [&](int64_t from, Sums& to) __attribute__((always_inline)) {
      Vector<T> value[N];
      MMSW_EACH value[i] = load_wide(rows[i] + from) - pivot[i];
      to.add(value);
    };
    const int64_t part = at + 16 * step < end ? at + 16 * step : end;
    for (; at + step <= part; at += step) {
      add(at, sums[0]);
      if (ways == 2) add(at + lanes<T>, sums[ways - 1]);
    }
    if (ways == 2 && at + lanes<T> <= part) add(at, sums[0]), at += lanes<T>;
    if (at < part) {
      Vector<T> value[N];
      MMSW_EACH value[i] = keep_last_lanes<T>(load_last<T>(rows[i], end) - pivot[i], end - at);
      sums[0].add(value);
      at = end;
    }
#pragma GCC unroll 32
    for (int i = 0; i < Sums::count; ++i) {
      whole[i] += ways == 2 ? sums[0].sums[i] + sums[ways - 1].sums[i] : sums[0].sums[i];
    }
  }
  for (int i = 0; i < Sums::count; ++i) totals[i] = sum_lanes<T>(whole[i]);
}

// Whether the deviations vary at least about as much as they differ from zero.
template <int N>
MMSW_INLINE bool are_near(const double* totals, int64_t count) {
  bool near = true;
  for (int i = 0; i < N; ++i) {
    near &= totals[i] * totals[i] <= 0.75 * count * totals[N + i * (i + 3) / 2];
  }
  return near;
}

// Takes the mean so far as the pivot of every stretch: what a stretch deviates from it is part of
// the covariance.
template <typename T, typename S, int N>
void row_moments(const S* const* all_rows, int64_t count, double* mean, double* covariance) {
  const S* rows[N];
  T pivot[N];
  const int64_t first = count < lanes<T> ? count : lanes<T>;
  MMSW_EACH {
    rows[i] = all_rows[i];
    pivot[i] = sum_lanes<T>(load_last<T>(rows[i], first)) / first;
    mean[i] = 0;
  }
  double products[N * (N + 1) / 2] = {};
  for (int64_t at = 0; at < count; at += summed_stretch) {
    const int64_t end = at + summed_stretch < count ? at + summed_stretch : count;
    using Sums = PairSums<T, N>;
    double totals[Sums::count];
    sum_stretch<Sums>(rows, pivot, at, end, totals);
    if (at == 0 && !are_near<N>(totals, end)) {
      MMSW_EACH pivot[i] = static_cast<T>(pivot[i] + totals[i] / end);
      sum_stretch<Sums>(rows, pivot, at, end, totals);
    }
    const double size = end - at, part = 1 / size, share = size / end, weight = at * share;
    double apart[N];  // mean of the stretch minus the mean so far
    MMSW_EACH apart[i] = pivot[i] + totals[i] * part - mean[i];
    for (int i = 0, pair = 0; i < N; ++i) {
      for (int k = 0; k <= i; ++k, ++pair) {
        products[pair] += totals[N + pair] - totals[i] * totals[k] * part;
        products[pair] += weight * apart[i] * apart[k];
      }
    }
    MMSW_EACH {
      mean[i] += apart[i] * share;
      pivot[i] = static_cast<T>(mean[i]);
    }
  }
  for (int i = 0, pair = 0; i < N; ++i) {
    for (int k = 0; k <= i; ++k, ++pair) {
      covariance[i * N + k] = covariance[k * N + i] = products[pair] / count;
    }
  }
}

template <typename T, typename S, int N>
void row_products(const S* grad, const S* const* maps, int64_t count, const double* mean,
                  double* sums) {
  const S* rows[N + 1] = {grad};
  T pivot[N + 1] = {};
  MMSW_EACH {
    rows[i + 1] = maps[i];
    pivot[i + 1] = static_cast<T>(mean[i]);
  }
  double sum[N + 1] = {};
  for (int64_t at = 0; at < count; at += summed_stretch) {
    const int64_t end = at + summed_stretch < count ? at + summed_stretch : count;
    double totals[N + 1];
    sum_stretch<FirstSums<T, N + 1>>(rows, pivot, at, end, totals);
    for (int i = 0; i <= N; ++i) sum[i] += totals[i];
  }
  for (int i = 0; i < N; ++i) sums[i] = sum[i + 1] + (pivot[i + 1] - mean[i]) * sum[0];
  sums[N] = sum[0];
}

template <typename T, typename S, int N>
MMSW_INLINE void mix_stretch(const S* const (&rows)[N], const T (&pivot)[N], const T* factors,
                             int64_t at, int64_t end, S* out) {
  const auto mixed = [&](const Vector<T>(&value)[N]) __attribute__((always_inline)) {
    Vector<T> sum = splat(factors[N]);
    MMSW_EACH sum += value[i] * factors[i];
    return sum;
  };
  Vector<T> value[N];
  for (; at + lanes<T> <= end; at += lanes<T>) {
    MMSW_EACH value[i] = load_wide(rows[i] + at) - pivot[i];
    store_narrow(out + at, mixed(value));
  }
  if (at < end) {
    MMSW_EACH value[i] = load_last<T>(rows[i], end) - pivot[i];
    store_last<T>(out, end, mixed(value));
  }
}

template <typename T, typename S, int N>
void row_sums(const S* const* maps, int64_t count, const T* pivots, const T* factors,
              S* const* outs, int64_t m) {
  const S* rows[N];
  T pivot[N];
  MMSW_EACH {
    rows[i] = maps[i];
    pivot[i] = pivots[i];
  }
  for (int64_t at = 0; at < count; at += mixed_stretch) {
    const int64_t end = at + mixed_stretch < count ? at + mixed_stretch : count;
    for (int64_t j = 0; j < m; ++j) {
      T own[N + 1];
      for (int i = 0; i <= N; ++i) own[i] = factors[j * (N + 1) + i];
      mix_stretch(rows, pivot, own, at, end, outs[j]);
    }
  }
}

#undef MMSW_EACH

// From the number of maps to the loops for so many.
#define MMSW_BY_COUNT(FUNCTION, ...)                 \
  switch (n) {                                       \
    case 1:                                          \
      return FUNCTION<T, S, 1>(__VA_ARGS__);         \
    case 2:                                          \
      return FUNCTION<T, S, 2>(__VA_ARGS__);         \
    case 3:                                          \
      return FUNCTION<T, S, 3>(__VA_ARGS__);         \
    case 4:                                          \
      return FUNCTION<T, S, 4>(__VA_ARGS__);         \
    case 5:                                          \
      return FUNCTION<T, S, kMostMaps>(__VA_ARGS__); \
  }

template <typename T, typename S>
void any_row_moments(const S* const* rows, int64_t n, int64_t count, double* mean,
                     double* covariance) {
  MMSW_BY_COUNT(row_moments, rows, count, mean, covariance)
}

template <typename T, typename S>
void any_row_products(const S* grad, const S* const* rows, int64_t n, int64_t count,
                      const double* mean, double* sums) {
  MMSW_BY_COUNT(row_products, grad, rows, count, mean, sums)
}

template <typename T, typename S>
void any_row_sums(const S* const* rows, int64_t n, int64_t count, const T* pivots, const T* factors,
                  S* const* outs, int64_t m) {
  MMSW_BY_COUNT(row_sums, rows, count, pivots, factors, outs, m)
}

#undef MMSW_BY_COUNT

template <typename T, typename S>
constexpr RowKernels<T, S> row_kernels() {
  return {any_row_moments<T, S>, any_row_products<T, S>, any_row_sums<T, S>};
}

}  // namespace
}  // namespace mmsw
