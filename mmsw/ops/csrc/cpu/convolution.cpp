// The fused operator and its gradient with respect to the map, on the CPU.
#include "../backend.h"
#include "arms.h"
#include "dispatch.h"
#include "new_map.h"
#include "parallel.h"

namespace mmsw {
namespace {

// What a thread needs: frames, and the blocks of the channel that it is at.
template <typename S>
struct Scratch {
  using T = Computed<S>;

  Scratch(int64_t samples, const MapSizes& maps, int64_t side)
      : frames(samples, maps, side), out(maps, frames.upright()), turned_sums(frames.turned()) {}

  void use(const Pattern& pattern, const S* weight, int64_t next, bool flipped) {
    if (channel == next) return;
    channel = next;
    const int64_t count = pattern.sizes.groups * pattern.sizes.block_size();
    weights.resize(count);
    Stored<S>::widen(weight + channel * count, count, 1, count, weights.data(), count);
    blocks.assemble(pattern, channel, weights.data(), flipped);
  }

  // Whether the wide arm may run over the upright frame.
  bool wins_wide() { return wins_reduced(frames.turned(), blocks.wide); }

  // The sums of the wide arm, over `maps` that the upright frame holds if the arm wins there. True:
  // `out` has them. False: `turned_sums` has; where maps are square, the frame holds transposes
  // now.
  bool run_wide(const S* maps, int64_t to_next, int64_t side, T init) {
    if (blocks.wide.empty()) return out.fill(init), true;
    if (out.run_turned(frames, blocks.wide, init)) return true;
    auto& turned = frames.turned();
    turned.copy_transposed(maps, to_next);
    turned_sums.run(turned, blocks.wide, side, init);
    return false;
  }

  FramePair<T> frames;
  ArmOutput<S> out;
  TurnedSums<T> turned_sums;
  CrossBlocks<T> blocks;
  std::vector<T> weights;
  int64_t channel = -1;
};

// Calls work(channel, place of the channel in the first sample, scratch) for the samples of every
// frame, channel by channel: the blocks of a channel serve its whole batch.
template <typename S, typename Work>
void for_each_frame(const MapSizes& maps, int64_t side, Work work) {
  const int64_t samples = samples_per_frame(maps, side, vector_lanes<Computed<S>>());
  const int64_t frames = maps.batch / samples;
  const int64_t grain = maps.area() > 1024 ? 1 : frames;  // small maps share their blocks
  for_each(maps.channels * frames, grain, Scratch<S>(samples, maps, side),
           [&](int64_t item, Scratch<S>& own) {
             const int64_t channel = item / frames;
             work(channel, maps.at(item % frames * samples, channel), own);
           });
}

template <typename S>
Outputs forward(const Tensor& x, const Tensor& weight, const Pattern& pattern) {
  using T = Computed<S>;
  const MapSizes maps = map_sizes(x);
  const Outputs outputs{new_map(x), new_map(x), new_map(x)};
  const S* in = x.const_data_ptr<S>();
  const S* weights = weight.const_data_ptr<S>();
  S* h = std::get<0>(outputs).mutable_data_ptr<S>();
  S* v = std::get<1>(outputs).mutable_data_ptr<S>();
  S* i = std::get<2>(outputs).mutable_data_ptr<S>();
  const int64_t side = pattern.sizes.side, to_next = maps.to_next_sample();
  for_each_frame<S>(maps, side, [&](int64_t channel, int64_t at, Scratch<S>& own) {
    own.use(pattern, weights, channel, false);
    auto& upright = own.frames.upright();
    upright.copy(in + at, to_next);
    const auto upright_arm = [&](const BlockList<T>& arm, S* to) {
      own.out.begin(to);
      arm.empty() ? own.out.fill(0) : own.out.run(upright, arm, side, false);
      own.out.store();
    };
    upright_arm(own.blocks.tall, v + at);
    upright_arm(own.blocks.small, i + at);
    own.out.begin(h + at);
    if (own.run_wide(in + at, to_next, side, 0)) return own.out.store();
    own.turned_sums.store(h + at, to_next, maps.width);
  });
  return outputs;
}

template <typename S>
Tensor grad_input(const Outputs& grads, const Tensor& weight, const Pattern& pattern) {
  using T = Computed<S>;
  const auto& [grad_h, grad_v, grad_i] = grads;
  const MapSizes maps = map_sizes(grad_h);
  const Tensor grad = new_map(grad_h);
  const S* h = grad_h.const_data_ptr<S>();
  const S* v = grad_v.const_data_ptr<S>();
  const S* i = grad_i.const_data_ptr<S>();
  const S* weights = weight.const_data_ptr<S>();
  S* out = grad.mutable_data_ptr<S>();
  const int64_t side = pattern.sizes.side, to_next = maps.to_next_sample();
  for_each_frame<S>(maps, side, [&](int64_t channel, int64_t at, Scratch<S>& own) {
    own.use(pattern, weights, channel, true);
    auto& upright = own.frames.upright();
    own.out.begin(out + at);
    if (own.wins_wide()) upright.copy(h + at, to_next);
    if (!own.run_wide(h + at, to_next, side, 0)) own.out.take(own.turned_sums);
    const auto add = [&](const BlockList<T>& arm, const S* map) {
      if (arm.empty()) return;
      upright.copy(map, to_next);
      own.out.run(upright, arm, side, true);
    };
    add(own.blocks.tall, v + at);
    add(own.blocks.small, i + at);
    own.out.store();
  });
  return grad;
}

template <typename S>
Tensor cross(const Tensor& x, const Tensor& wide, const Tensor& tall, const Tensor* bias) {
  using T = Computed<S>;
  const MapSizes maps = map_sizes(x);
  const Tensor result = new_map(x);
  const S* in = x.const_data_ptr<S>();
  const S* wides = wide.const_data_ptr<S>();
  const S* talls = tall.const_data_ptr<S>();
  const S* biases = bias == nullptr ? nullptr : bias->const_data_ptr<S>();
  S* out = result.mutable_data_ptr<S>();
  const int64_t side = wide.size(2), to_next = maps.to_next_sample();
  const auto list = [&](BlockList<T>& blocks, const S* arms, int64_t taps, int64_t channel) {
    const int64_t count = taps * side;
    Stored<S>::widen(arms + channel * count, count, 1, count, blocks.arm(taps, side), count);
    blocks.list_taps(taps, side);
  };
  for_each_frame<S>(maps, side, [&](int64_t channel, int64_t at, Scratch<S>& own) {
    if (own.channel != channel) {
      own.channel = channel;
      list(own.blocks.wide, wides, wide.size(1), channel);
      list(own.blocks.tall, talls, tall.size(1), channel);
    }
    const T init = biases == nullptr ? T(0) : static_cast<T>(biases[channel]);
    auto& upright = own.frames.upright();
    own.out.begin(out + at);
    upright.copy(in + at, to_next);
    if (!own.run_wide(in + at, to_next, side, init)) {
      own.out.take(own.turned_sums);
      upright.copy(in + at, to_next);
    }
    own.out.run(upright, own.blocks.tall, side, true);
    own.out.store();
  });
  return result;
}

}  // namespace

Outputs run_conv(const Tensor& x, const Tensor& weight, const Pattern& pattern) {
  return MMSW_DISPATCH(x, forward, x, weight, pattern);
}

Tensor run_grad_input(const Outputs& grads, const Tensor& weight, const Pattern& pattern) {
  return MMSW_DISPATCH(weight, grad_input, grads, weight, pattern);
}

Tensor run_cross(const Tensor& x, const Tensor& wide, const Tensor& tall,
                 const std::optional<Tensor>& bias) {
  return MMSW_DISPATCH(x, cross, x, wide, tall, bias ? &*bias : nullptr);
}

}  // namespace mmsw
