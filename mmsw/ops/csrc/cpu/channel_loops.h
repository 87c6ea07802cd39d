// Layer norm over the channels of some neighbouring positions of one sample, and its gradient. The
// rows of the channels lie far apart, so they are gathered into memory that stays in the cache, in
// the type T that is computed in; there they are as long as whole vectors, filled up with zeros.
//
// Every position is worked on by itself, in one lane. So a result does not depend on the block that
// its position is in.
#pragma once

#include <cmath>

#include "hidden_loops.h"

namespace mmsw {
namespace {

template <typename T>
using Vector = typename Simd<T>::V;

template <bool Whole, typename S>
MMSW_INLINE auto take(const S* from, int64_t count) {
  if constexpr (Whole) return load_wide(from);
  return load_wide(End<S>(from, count).values);
}

template <bool Whole, typename S, typename V>
MMSW_INLINE void put(S* to, int64_t count, V value) {
  if constexpr (Whole) {
    store_narrow(to, value);
  } else {
    End<S> end(to, count);
    store_narrow(end.values, value);
    end.write(to);
  }
}

template <typename T>
MMSW_INLINE T sum_of(Vector<T> value) {
  T sum = 0;
  for (int i = 0; i < lanes<T>; ++i) sum += value[i];
  return sum;
}

// Runs a step for all channels, Rows of them at once, over all positions.
template <template <typename, typename, int> class Step, int Rows, typename T, typename S>
MMSW_INLINE void run_rows(const ChannelBlock<T, S>& block, int64_t channel) {
  Step<T, S, Rows> step{block, channel};
  int64_t at = 0;
  for (; at + lanes<T> <= block.positions; at += lanes<T>) step.template run<true>(at);
  if (at < block.positions) step.template run<false>(at);
  step.finish();
}

template <template <typename, typename, int> class Step, int Rows, typename T, typename S>
void run_step(const ChannelBlock<T, S>& block) {
  int64_t channel = 0;
  for (; channel + Rows <= block.channels; channel += Rows) {
    run_rows<Step, Rows>(block, channel);
  }
  for (; channel < block.channels; ++channel) run_rows<Step, 1>(block, channel);
}

// values = map; first = its sums
template <typename T, typename S, int Rows>
struct Gather {
  const ChannelBlock<T, S> block;  // a copy, which no store can change
  int64_t channel;

  template <bool Whole>
  MMSW_INLINE void run(int64_t at) {
    Vector<T> sum{};
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) {
      const S* from = block.in + (channel + row) * block.in_stride + at;
      const Vector<T> value = take<Whole>(from, block.positions - at);
      store(block.values + (channel + row) * block.width + at, value);
      sum += value;
    }
    store(block.first + at, load(block.first + at) + sum);
  }
  MMSW_INLINE void finish() {}
};

// first, second = sums of the deviations from `mean` and of their squares
template <typename T, typename S, int Rows>
struct Deviate {
  const ChannelBlock<T, S> block;
  int64_t channel;

  template <bool>
  MMSW_INLINE void run(int64_t at) {
    const Vector<T> mean = load(block.mean + at);
    Vector<T> sum{}, squares{};
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) {
      const Vector<T> value = load(block.values + (channel + row) * block.width + at) - mean;
      sum += value;
      squares += value * value;
    }
    store(block.first + at, load(block.first + at) + sum);
    store(block.second + at, load(block.second + at) + squares);
  }
  MMSW_INLINE void finish() {}
};

// out = (values - mean - first) * rstd * weight + bias
template <typename T, typename S, int Rows>
struct Normalise {
  const ChannelBlock<T, S> block;
  int64_t channel;

  template <bool Whole>
  MMSW_INLINE void run(int64_t at) {
    const Vector<T> mean = load(block.mean + at), rest = load(block.first + at),
                    rstd = load(block.rstd + at);
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) {
      const int64_t each = channel + row;
      const Vector<T> value = load(block.values + each * block.width + at) - mean - rest;
      put<Whole>(block.out + each * block.out_stride + at, block.positions - at,
                 value * rstd * block.weight[each] + block.bias[each]);
    }
  }
  MMSW_INLINE void finish() {}
};

template <typename T, typename S>
void channel_norm(const ChannelBlock<T, S>& block) {
  const T share = T(1) / static_cast<T>(block.channels);
  T *first = block.first, *second = block.second;
  std::fill_n(first, block.width, T(0));
  run_step<Gather, 4>(block);
  for (int64_t at = 0; at < block.width; ++at) {
    block.mean[at] = first[at] * share;
    first[at] = second[at] = 0;
  }
  run_step<Deviate, 4>(block);
  for (int64_t at = 0; at < block.width; ++at) {
    first[at] *= share;  // what `mean` lacks: its sum was rounded where the values are large
    const T variance = second[at] * share - first[at] * first[at];
    block.rstd[at] = 1 / std::sqrt((variance < 0 ? 0 : variance) + block.eps);
  }
  run_step<Normalise, 4>(block);
  for (int64_t at = 0; at < block.width; ++at) block.mean[at] += first[at];
}

// values = normalised map, grads = gradient; first, second = sums of the gradient of the normalised
// map, and of its products with that map; sums = the block's share in the gradients of weight, bias
template <typename T, typename S, int Rows>
struct GatherGrad {
  const ChannelBlock<T, S> block;
  int64_t channel;
  Vector<T> by_weight[Rows] = {}, by_bias[Rows] = {};

  template <bool Whole>
  MMSW_INLINE void run(int64_t at) {
    const Vector<T> mean = load(block.mean + at), rstd = load(block.rstd + at);
    Vector<T> first = load(block.first + at), second = load(block.second + at);
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) {
      const int64_t each = channel + row, rest = block.positions - at;
      const S *from = block.in + each * block.in_stride + at,
              *grads = block.grad + each * block.grad_stride + at;
      const Vector<T> value = (take<Whole>(from, rest) - mean) * rstd,
                      grad = take<Whole>(grads, rest), scaled = grad * block.weight[each];
      store(block.values + each * block.width + at, value);
      store(block.grads + each * block.width + at, scaled);
      first += scaled;
      second += scaled * value;
      by_weight[row] += grad * value;
      by_bias[row] += grad;
    }
    store(block.first + at, first);
    store(block.second + at, second);
  }
  MMSW_INLINE void finish() {
    for (int row = 0; row < Rows; ++row) {
      block.sums[channel + row] = sum_of<T>(by_weight[row]);
      block.sums[block.channels + channel + row] = sum_of<T>(by_bias[row]);
    }
  }
};

// out = (grads - first - values * second) * rstd
template <typename T, typename S, int Rows>
struct PassBack {
  const ChannelBlock<T, S> block;
  int64_t channel;

  template <bool Whole>
  MMSW_INLINE void run(int64_t at) {
    const Vector<T> first = load(block.first + at), second = load(block.second + at),
                    rstd = load(block.rstd + at);
#pragma GCC unroll 4
    for (int row = 0; row < Rows; ++row) {
      const int64_t each = channel + row, from = each * block.width + at;
      const Vector<T> grad =
          (load(block.grads + from) - first - load(block.values + from) * second) * rstd;
      put<Whole>(block.out + each * block.out_stride + at, block.positions - at, grad);
    }
  }
  MMSW_INLINE void finish() {}
};

template <typename T, typename S>
void channel_norm_grad(const ChannelBlock<T, S>& block) {
  const T share = T(1) / static_cast<T>(block.channels);
  std::fill_n(block.first, block.width, T(0));
  std::fill_n(block.second, block.width, T(0));
  run_step<GatherGrad, 2>(block);
  for (int64_t at = 0; at < block.width; ++at) {
    block.first[at] *= share;
    block.second[at] *= share;
  }
  run_step<PassBack, 2>(block);
}

template <typename T, typename S>
constexpr ChannelKernels<T, S> channel_kernels() {
  return {channel_norm<T, S>, channel_norm_grad<T, S>};
}

}  // namespace
}  // namespace mmsw
