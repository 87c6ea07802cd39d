// Sizes and algebra of a shift pattern; the only place with slots, offsets and margins.
//
// Free of torch, for host and device. Words that all of csrc uses: an arm of the cross is `groups`
// slots of `side` taps. `tap` counts along the arm, `n` across it. Taps run along the rows; the
// wide arm is stored transposed and runs on the transposed plane. A block is the `side x side`
// weights of one slot, summed over the repetitions. Output row `y` reads map row `y + first + tap`,
// output column `x` reads map column `x + n - side / 2`.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MMSW_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MMSW_HOST_DEVICE inline
#endif

namespace mmsw {

struct PatternSizes {
  int big;     // M
  int side;    // N, odd
  int groups;  // nk, small kernels of a channel and slots of an arm
  int reps;    // R

  // Rows (columns) by which a conv output exceeds the map on each side.
  MMSW_HOST_DEVICE int margin() const { return side - 1 - side / 2; }
  MMSW_HOST_DEVICE int arm_taps() const { return groups * side; }
  MMSW_HOST_DEVICE int block_size() const { return side * side; }
  // Of tap 0; `flipped` is the arm that the gradient of the map runs through.
  MMSW_HOST_DEVICE int first(bool flipped) const {
    return flipped ? big / 2 - (arm_taps() - 1) : -(big / 2);
  }
  // The shift of slot 0; that of every further slot is `side` less.
  MMSW_HOST_DEVICE int largest_shift() const { return big / 2 - (side - 1); }
  MMSW_HOST_DEVICE int slot_of_shift(int shift) const { return (largest_shift() - shift) / side; }
};

// A pattern with its tables, both contiguous.
struct Pattern {
  PatternSizes sizes;
  int channels;
  const int32_t* shift;     // [C * nk][2R]: the shifts of the wide arm, then those of the tall one
  const int64_t* identity;  // [C][R]: channel * nk + group

  MMSW_HOST_DEVICE int shift_of(int64_t channel, int64_t group, int64_t column) const {
    return shift[(channel * sizes.groups + group) * 2 * sizes.reps + column];
  }
  MMSW_HOST_DEVICE int slot_of(int64_t channel, int64_t group, int64_t column) const {
    return sizes.slot_of_shift(shift_of(channel, group, column));
  }
  // The group of its channel that a repetition adds to the identity output.
  MMSW_HOST_DEVICE int identity_group(int64_t channel, int64_t rep) const {
    return static_cast<int>(identity[channel * sizes.reps + rep] - channel * sizes.groups);
  }
};

}  // namespace mmsw
