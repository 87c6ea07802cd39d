// From small kernels to the blocks of the cross and back, for one channel: mmsw/ops/assemble.py in
// C++.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "../pattern.h"
#include "kernels.h"
#include "reduced.h"

namespace mmsw {

// A block of the wide arm as it is stored, for the transposed map, and back.
template <typename T>
void transpose_block(T* block, int64_t side) {
  for (int64_t row = 0; row < side; ++row) {
    for (int64_t column = 0; column < row; ++column) {
      std::swap(block[row * side + column], block[column * side + row]);
    }
  }
}

// The N x N blocks of an arm that are not all zero: what is pruned costs nothing from here on.
// NaN is not zero.
template <typename T>
class BlockList {
 public:
  // Room for the weights of `slots` blocks, all zero; to be filled before `list_slots`.
  T* clear(int64_t slots, int64_t side) {
    weights_.assign(slots * side * side, T(0));
    return weights_.data();
  }

  // The block of slot 0 has offset `first`; those of a flipped arm have falling ones.
  void list_slots(int64_t side, int64_t first, bool flipped, bool transposed) {
    const int64_t area = side * side, slots = static_cast<int64_t>(weights_.size()) / area;
    blocks_.clear();
    reduced_.forget();
    for (int64_t slot = 0; slot < slots; ++slot) {
      T* weight = weights_.data() + slot * area;
      if (!is_used(weight, area)) continue;
      if (transposed) transpose_block(weight, side);
      if (flipped) std::reverse(weight, weight + area);
      blocks_.push_back({first + (flipped ? -slot : slot) * side, weight});
    }
  }

  // Room for the weights of an arm of any length, to be filled before `list_taps`.
  T* arm(int64_t taps, int64_t side) {
    weights_.resize(taps * side);
    return weights_.data();
  }

  // Cuts the arm, centred, into the fewest blocks: so the slots of a folded arm come apart again,
  // wherever in the arm they begin.
  void list_taps(int64_t taps, int64_t side) {
    used_.resize(taps);
    for (int64_t tap = 0; tap < taps; ++tap) used_[tap] = is_used(arm_tap(tap, side), side);
    int64_t best = 0, fewest = taps + 1;
    for (int64_t before = 0; before < side; ++before) {
      int64_t count = 0;
      visit_blocks(taps, side, before, [&](int64_t, int64_t) { ++count; });
      if (count < fewest) best = before, fewest = count;
    }
    blocks_.clear();
    ends_.clear();
    reduced_.forget();
    visit_blocks(taps, side, best, [&](int64_t begin, int64_t end) {
      const Block<T> block{begin - taps / 2, arm_tap(begin, side)};
      if (end - begin == side) {
        blocks_.push_back(block);
      } else {
        ends_.push_back({block, end - begin});
      }
    });
  }

  // The whole blocks.
  const Block<T>* data() const { return blocks_.data(); }
  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }
  bool empty() const { return blocks_.empty() && ends_.empty(); }
  ReducedArm& reduced() const { return reduced_; }

  // Blocks of fewer taps, at most two. They are not padded with zeros: zero times an infinity of
  // the map would be NaN.
  struct End {
    Block<T> block;
    int64_t taps;
  };
  const std::vector<End>& ends() const { return ends_; }

 private:
  static bool is_used(const T* weight, int64_t count) {
    bool used = false;
    for (int64_t i = 0; i < count; ++i) used |= weight[i] != T(0);
    return used;
  }
  const T* arm_tap(int64_t tap, int64_t side) const { return weights_.data() + tap * side; }

  // Calls visit(begin, end) for every block with a tap in use, where the first block begins
  // `before` taps before the arm.
  template <typename Visit>
  void visit_blocks(int64_t taps, int64_t side, int64_t before, Visit visit) const {
    for (int64_t start = -before; start < taps; start += side) {
      const int64_t begin = std::max<int64_t>(start, 0), end = std::min(start + side, taps);
      bool used = false;
      for (int64_t tap = begin; tap < end; ++tap) used |= used_[tap];
      if (used) visit(begin, end);
    }
  }

  std::vector<T> weights_;
  std::vector<char> used_;
  std::vector<Block<T>> blocks_;
  std::vector<End> ends_;
  mutable ReducedArm reduced_;
};

// Calls visit(group, block, size of a block) for every block of one channel that a group has a part
// in, in the wide arm, in the tall arm or in the identity, each laid out as the small kernels are.
template <int Side, typename T, typename Visit>
void visit_blocks(const Pattern& pattern, int64_t channel, T* wide, T* tall, T* small,
                  Visit visit) {
  PatternSizes sizes = pattern.sizes;
  if (Side > 0) sizes.side = Side;  // a constant from here on
  const int area = sizes.block_size();
  for (int rep = 0; rep < sizes.reps; ++rep) {
    for (int group = 0; group < sizes.groups; ++group) {
      const int shift_h = pattern.shift_of(channel, group, rep);
      const int shift_v = pattern.shift_of(channel, group, sizes.reps + rep);
      visit(group, wide + sizes.slot_of_shift(shift_h) * area, area);
      visit(group, tall + sizes.slot_of_shift(shift_v) * area, area);
    }
    visit(pattern.identity_group(channel, rep), small, area);
  }
}

template <typename T, typename Visit>
void visit_blocks(const Pattern& pattern, int64_t channel, T* wide, T* tall, T* small,
                  Visit visit) {
  const auto run = pattern.sizes.side == 3   ? visit_blocks<3, T, Visit>
                   : pattern.sizes.side == 5 ? visit_blocks<5, T, Visit>
                                             : visit_blocks<0, T, Visit>;
  run(pattern, channel, wide, tall, small, visit);
}

// The blocks of one channel, ready to run over the map or, flipped, over gradients of outputs.
template <typename T>
struct CrossBlocks {
  BlockList<T> wide, tall, small;

  // `weight` holds the small kernels of the channel.
  void assemble(const Pattern& pattern, int64_t channel, const T* weight, bool flipped) {
    const PatternSizes& sizes = pattern.sizes;
    T* to_wide = wide.clear(sizes.groups, sizes.side);
    T* to_tall = tall.clear(sizes.groups, sizes.side);
    visit_blocks(pattern, channel, to_wide, to_tall, small.clear(1, sizes.side),
                 [&](int group, T* __restrict__ block, int area) {
                   const T* __restrict__ from = weight + group * area;
                   for (int i = 0; i < area; ++i) block[i] += from[i];
                 });
    const int64_t first = flipped ? sizes.largest_shift() : sizes.first(false);
    wide.list_slots(sizes.side, first, flipped, true);
    tall.list_slots(sizes.side, first, flipped, false);
    small.list_slots(sizes.side, -(sizes.side / 2), flipped, false);
  }
};

}  // namespace mmsw
