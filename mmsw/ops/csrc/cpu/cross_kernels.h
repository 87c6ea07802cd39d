// From small kernels to cross kernels and back, for one channel: mmsw/ops/assemble.py in C++.
//
// See pattern.h for the words and for the layout of an arm.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../pattern.h"
#include "kernels.h"

namespace mmsw {

// The arms and the identity kernel of one channel.
template <typename T>
struct CrossKernel {
  std::vector<T> wide, tall, small;

  explicit CrossKernel(const Pattern& pattern)
      : wide(pattern.sizes.groups * pattern.sizes.block_size()),
        tall(wide.size()),
        small(pattern.sizes.block_size()) {}

  void clear() {
    wide.assign(wide.size(), T(0));
    tall.assign(tall.size(), T(0));
    small.assign(small.size(), T(0));
  }
};

// Calls visit(weight index in the channel, element of an arm or of the identity) for every
// contribution of one channel. Assembly adds along it, its transpose gathers along it.
template <int64_t Side, typename T, typename Visit>
void visit_contributions(const Pattern& pattern, int64_t channel, CrossKernel<T>& kernel,
                         Visit visit) {
  const int64_t side = Side > 0 ? Side : pattern.sizes.side, area = side * side;
  for (int64_t rep = 0; rep < pattern.sizes.reps; ++rep) {
    for (int64_t group = 0; group < pattern.sizes.groups; ++group) {
      T* wide = kernel.wide.data() + pattern.slot_of(channel, group, rep) * area;
      T* tall = kernel.tall.data() + pattern.slot_of(channel, group, pattern.sizes.reps + rep) * area;
      for (int64_t row = 0; row < side; ++row) {
        for (int64_t column = 0; column < side; ++column) {
          const int64_t index = group * area + row * side + column;
          visit(index, wide[column * side + row]);
          visit(index, tall[row * side + column]);
        }
      }
    }
    const int64_t group = pattern.identity_group(channel, rep);
    for (int64_t i = 0; i < area; ++i) visit(group * area + i, kernel.small[i]);
  }
}

template <typename T, typename Visit>
void visit_contributions(const Pattern& pattern, int64_t channel, CrossKernel<T>& kernel,
                         Visit visit) {
  if (pattern.sizes.side == 3) return visit_contributions<3>(pattern, channel, kernel, visit);
  if (pattern.sizes.side == 5) return visit_contributions<5>(pattern, channel, kernel, visit);
  return visit_contributions<0>(pattern, channel, kernel, visit);
}

template <typename T>
void assemble(const Pattern& pattern, int64_t channel, const T* weight, CrossKernel<T>& kernel) {
  kernel.clear();
  visit_contributions(pattern, channel, kernel, [&](int64_t i, T& tap) { tap += weight[i]; });
}

template <typename T>
void disassemble(const Pattern& pattern, int64_t channel, CrossKernel<T>& grad, T* grad_weight) {
  visit_contributions(pattern, channel, grad, [&](int64_t i, T& tap) { grad_weight[i] += tap; });
}

// The N x N blocks of an arm that are not all zero: what is pruned costs nothing from here on.
// NaN is not zero. `taps` that are no multiple of N leave a last block padded with zeros.
template <typename T>
class BlockList {
 public:
  void fill(const T* arm, int64_t taps, int64_t side, int64_t first, bool flip) {
    const int64_t area = side * side, count = (taps + side - 1) / side;
    weights_.resize(count * area);
    blocks_.clear();
    for (int64_t index = 0; index < count; ++index) {
      T* weight = weights_.data() + index * area;
      const T* from = arm + index * area;
      const int64_t present = std::min(area, taps * side - index * area);
      bool kept = false;
      for (int64_t i = 0; i < present; ++i) kept |= from[i] != T(0);
      if (!kept) continue;
      for (int64_t i = 0; i < area; ++i) {
        weight[flip ? area - 1 - i : i] = i < present ? from[i] : T(0);
      }
      const int64_t offset = first + index * side;
      blocks_.push_back({flip ? -(offset + side - 1) : offset, weight});
    }
  }
  const Block<T>* data() const { return blocks_.data(); }
  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }

 private:
  std::vector<T> weights_;
  std::vector<Block<T>> blocks_;
};

}  // namespace mmsw
