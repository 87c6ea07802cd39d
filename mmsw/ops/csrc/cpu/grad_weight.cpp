// The gradient of the fused operator with respect to the small kernels, on the CPU.
#include <ATen/ops/empty.h>

#include "../backend.h"
#include "cross_kernels.h"
#include "dispatch.h"
#include "frame.h"
#include "parallel.h"

namespace mmsw {
namespace {

// The gradient of an arm: vectors of partial sums over the samples, added up at the end, so that
// small maps do not end in more sums over lanes than they take steps.
template <typename T>
class ArmGrad {
 public:
  // An arm of zeros. Returns what tells which slots are wanted: one element per weight, of which
  // the first of a slot counts.
  char* begin(int64_t slots, int64_t side, bool all) {
    side_ = side;
    wanted_.assign(slots * side * side, all);
    sums_.assign(slots * side * side * vector_lanes<T>(), T(0));
    total_.resize(slots * side * side);
    return wanted_.data();
  }

  // Adds the maps of a frame to the slots that are wanted; tap 0 has offset `first`.
  void add(const Frame<T>& map, const Frame<T>& grad, int64_t first) {
    const int64_t area = side_ * side_, slots = static_cast<int64_t>(wanted_.size()) / area;
    for (int64_t slot = 0; slot < slots;) {
      const int64_t begin = slot;
      while (slot < slots && wanted_[slot * area]) ++slot;
      if (slot > begin) {
        plane_kernels<T>().correlate_grad(map.plane(), grad.plane(), first + begin * side_,
                                          (slot - begin) * side_, side_,
                                          sums_.data() + begin * area * vector_lanes<T>());
      }
      while (slot < slots && !wanted_[slot * area]) ++slot;
    }
  }

  T* total() {
    plane_kernels<T>().reduce(sums_.data(), static_cast<int64_t>(total_.size()), total_.data());
    return total_.data();
  }

 private:
  int64_t side_ = 0;
  std::vector<char> wanted_;
  std::vector<T> sums_, total_;
};

template <typename T>
struct Scratch {
  Scratch(int64_t samples, const MapSizes& maps, int64_t side)
      : map(samples, maps, side), grad(samples, maps, side) {}

  // Asks for the slots that hold a group whose mask is on.
  void begin(const Pattern& pattern, int64_t channel, const bool* mask) {
    const PatternSizes& sizes = pattern.sizes;
    const bool all = mask == nullptr;
    char* in_wide = wide.begin(sizes.groups, sizes.side, all);
    char* in_tall = tall.begin(sizes.groups, sizes.side, all);
    char* in_small = small.begin(1, sizes.side, all);
    if (all) return;
    const bool* on = mask + channel * sizes.groups;
    visit_blocks(pattern, channel, in_wide, in_tall, in_small,
                 [&](int group, char* slot, int) { *slot |= on[group]; });
  }

  // Gathers what the small kernels of the channel get; those whose mask is off get zero.
  void gather(const Pattern& pattern, int64_t channel, const bool* mask) {
    const PatternSizes& sizes = pattern.sizes;
    const int64_t area = sizes.block_size();
    T* from_wide = wide.total();
    for (int64_t slot = 0; slot < sizes.groups; ++slot) {
      transpose_block(from_wide + slot * area, sizes.side);
    }
    weights.assign(sizes.groups * area, T(0));
    visit_blocks(pattern, channel, from_wide, tall.total(), small.total(),
                 [&](int group, const T* __restrict__ block, int size) {
                   T* __restrict__ to = weights.data() + group * size;
                   for (int i = 0; i < size; ++i) to[i] += block[i];
                 });
    for (int64_t group = 0; mask != nullptr && group < sizes.groups; ++group) {
      if (mask[channel * sizes.groups + group]) continue;
      std::fill_n(weights.begin() + group * area, area, T(0));
    }
  }

  FramePair<T> map, grad;
  ArmGrad<T> wide, tall, small;
  std::vector<T> weights;
};

template <typename S>
Tensor grad_weight(const Outputs& grads, const Tensor& x, const bool* mask,
                   const Pattern& pattern) {
  using T = Computed<S>;
  const auto& [grad_h, grad_v, grad_i] = grads;
  const MapSizes maps = map_sizes(x);
  const int64_t side = pattern.sizes.side, count = pattern.sizes.groups * side * side;
  const Tensor grad = at::empty({maps.channels * pattern.sizes.groups, 1, side, side}, x.options());
  const S* in = x.const_data_ptr<S>();
  const S* h = grad_h.const_data_ptr<S>();
  const S* v = grad_v.const_data_ptr<S>();
  const S* i = grad_i.const_data_ptr<S>();
  S* out = grad.mutable_data_ptr<S>();
  const int64_t samples = samples_per_frame(maps, side, vector_lanes<T>());
  const int64_t first = pattern.sizes.first(false), to_next = maps.to_next_sample();
  for_each(maps.channels, 1, Scratch<T>(samples, maps, side),
           [&](int64_t channel, Scratch<T>& own) {
             own.begin(pattern, channel, mask);
             for (int64_t sample = 0; sample < maps.batch; sample += samples) {
               const int64_t at = maps.at(sample, channel);
               auto &map = own.map.upright(), &map_grad = own.grad.upright();
               map.copy(in + at, to_next);
               map_grad.copy(v + at, to_next);
               own.tall.add(map, map_grad, first);
               map_grad.copy(i + at, to_next);
               own.small.add(map, map_grad, -(side / 2));
               auto &turned = own.map.turned(), &turned_grad = own.grad.turned();
               turned.copy_transposed(in + at, to_next);
               turned_grad.copy_transposed(h + at, to_next);
               own.wide.add(turned, turned_grad, first);
             }
             own.gather(pattern, channel, mask);
             Stored<S>::narrow(own.weights.data(), count, 1, count, out + channel * count, count);
           });
  return grad;
}

}  // namespace

Tensor run_grad_weight(const Outputs& grads, const Tensor& x, const std::optional<Tensor>& mask,
                       const Pattern& pattern) {
  const bool* on = mask ? mask->const_data_ptr<bool>() : nullptr;
  return MMSW_DISPATCH(x, grad_weight, grads, x, on, pattern);
}

}  // namespace mmsw
