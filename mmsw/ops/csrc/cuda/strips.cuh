// A depthwise kernel of any size as strips of N, and the strips as arms of N x N blocks.
//
//     kernel, long side along the rows      strip 0   strip 1   strip 2
//     [M1 x M2]                          =  |N wide|  |N wide|  |N wide|    each an arm over the
//     map
//                                                                           moved aside
//
// A kernel that is wider than high is cut along its rows, and its strips run as wide arms. The last
// strip and the last block end where the kernel ends: what the cut needs beyond it lies in the
// first strip and in the first block, as zeros over weights of the next one. So nothing is read
// that the kernel does not reach.
#pragma once

#include "assemble.cuh"

namespace mmsw {

struct Strips {
  int side;
  bool wide;     // strips run along the columns
  Arm across;    // the short side of the kernel; its slots are the strips
  Arm along;     // the long side: the arm of strip 0
  int length;    // of the long side
  int breadth;   // of the short side
  bool flipped;  // the kernel is turned, for the gradient of the map

  MMSW_HOST_DEVICE int count() const { return across.slots; }
  MMSW_HOST_DEVICE int blocks() const { return count() * along.slots; }
  MMSW_HOST_DEVICE int words() const { return count() * along.words(); }
  MMSW_HOST_DEVICE int weights() const { return length * breadth; }
  MMSW_HOST_DEVICE Arm arm(int strip) const {
    Arm own = along;
    own.block0 = strip * along.slots;
    own.word0 = strip * along.words();
    return own;
  }
  // Columns from those that an arm reads by itself to those of a strip.
  MMSW_HOST_DEVICE int aside(int strip) const {
    return across.first + across.start(strip) + side / 2;
  }
  // All strips as one cross: its first arm and its last.
  MMSW_HOST_DEVICE Cross cross() const { return {side, arm(0), arm(count() - 1), false}; }
  // Where the weight at tap `row` of the long side and tap `column` of the short one lies in
  // memory.
  MMSW_HOST_DEVICE int place_of(int row, int column) const {
    const int place = wide ? column * length + row : row * breadth + column;
    return flipped ? weights() - 1 - place : place;
  }
};

// `overlapping` as said above; otherwise strips and blocks begin where the kernel begins, and the
// last ones end beyond it.
inline Strips strips_of(int height, int width, int side, bool flipped, bool overlapping) {
  const auto arm = [&](int taps) {
    const int slots = ceil_div(taps, side);
    return Arm{
        side, slots, -(flipped ? taps / 2 : (taps - 1) / 2), overlapping ? slots * side - taps : 0,
        0,    0};
  };
  const bool wide = width > height;
  const int length = wide ? width : height, breadth = wide ? height : width;
  return {side, wide, arm(breadth), arm(length), length, breadth, flipped};
}

// The side of the blocks: at most the short side, beyond which they would only have zeros.
inline int strip_side(int height, int width, int wanted) {
  const int breadth = min_of(height, width);
  return min_of(wanted, breadth - 1 + breadth % 2);
}

// Integers of scratch that the next function needs.
inline int64_t strips_scratch(const Strips& strips) { return strips.blocks(); }

// The blocks of one channel, from its kernel.
template <typename T, typename Team>
MMSW_HOST_DEVICE void assemble_strips(const Team& team, int channel, const Strips& strips,
                                      const T* weight, typename Accumulator<T>::type* all_blocks,
                                      uint32_t* all_occupied, int* scratch) {
  using Acc = typename Accumulator<T>::type;
  const int side = strips.side, pitch = block_pitch(side);
  const T* kernel = weight + static_cast<int64_t>(channel) * strips.weights();
  Acc* blocks = all_blocks + static_cast<int64_t>(channel) * strips.blocks() * pitch;
  team.each_thread([&](int thread) {
    for (int i = thread; i < strips.blocks() * pitch; i += team.threads()) {
      const int block = i / pitch, own = i % pitch;
      const int strip = block / strips.along.slots, slot = block % strips.along.slots;
      const int row = strips.along.start(slot) + own / side;
      const int column = strips.across.start(strip) + own % side;
      const bool there = own < side * side && row < strips.length && column < strips.breadth &&
                         strips.along.slot_of(row) == slot &&
                         strips.across.slot_of(column) == strip;
      blocks[i] = there ? Convert<T>::load(kernel[strips.place_of(row, column)]) : Acc(0);
    }
  });
  mark_occupied(
      team, side, strips.blocks(), strips.words(),
      [&](int word) { return strips.arm(word / strips.along.words()); }, blocks,
      all_occupied + static_cast<int64_t>(channel) * strips.words(), scratch);
}

// Thread program: gradient of one weight of the kernels from those of the blocks.
template <typename T>
MMSW_HOST_DEVICE T gather_strips(int64_t index, const Strips& strips,
                                 const typename Accumulator<T>::type* block_grads) {
  const int side = strips.side, taps = side * side;
  const int place = static_cast<int>(index % strips.weights());
  const int64_t channel = index / strips.weights();
  const int row = strips.wide ? place % strips.length : place / strips.breadth;
  const int column = strips.wide ? place / strips.length : place % strips.breadth;
  const int strip = strips.across.slot_of(column), slot = strips.along.slot_of(row);
  const int own = (row - strips.along.start(slot)) * side + column - strips.across.start(strip);
  const int block = strips.arm(strip).block0 + slot;
  return Convert<T>::store(block_grads[(channel * strips.blocks() + block) * taps + own]);
}

}  // namespace mmsw
