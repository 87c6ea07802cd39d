// Shift and add, the second step alone, and its gradient. Both gather, so neither needs atomics.
#pragma once

#include "block.cuh"
#include "shift_wise.cuh"

namespace mmsw {

MMSW_HOST_DEVICE int conv_margin(int side) { return side - 1 - side / 2; }

MMSW_HOST_DEVICE bool in_range(int index, int length) { return index >= 0 && index < length; }

// Shifts of one channel, [nk][2 * R], and its identity groups, [R], into shared memory.
template <typename Block>
MMSW_DEVICE void load_pattern(
    const Block& block, int channel, const ConvSizes& sizes, const int* shift_hv,
    const int64_t* identity_index, int* shifts, int* picked) {
  const int count = sizes.groups * 2 * sizes.reps;
  block.each_thread([&](int thread) {
    for (int i = thread; i < count; i += block.threads()) {
      shifts[i] = shift_hv[static_cast<int64_t>(channel) * count + i];
    }
    for (int i = thread; i < sizes.reps; i += block.threads()) {
      picked[i] = static_cast<int>(
          identity_index[static_cast<int64_t>(channel) * sizes.reps + i] % sizes.groups);
    }
  });
}

// Block program: the three outputs of one strip of `block.threads()` positions of one plane.
// `conv_out` is [B, C * nk, H + 2e, W + 2e]; `shared` holds (2 * nk + 1) * R integers.
template <typename T, typename Block>
MMSW_DEVICE void shift_add_strip(
    const Block& block, int64_t plane, int strip, const ConvSizes& sizes, const T* conv_out,
    const int* shift_hv, const int64_t* identity_index, T* out_h, T* out_v, T* out_i,
    int* shared) {
  using Acc = typename Accumulator<T>::type;
  const int reps = sizes.reps, groups = sizes.groups;
  int* picked = shared + 2 * reps * groups;
  load_pattern(
      block, static_cast<int>(plane % sizes.channels), sizes, shift_hv, identity_index, shared,
      picked);
  const int margin = conv_margin(sizes.side);
  const int rows = sizes.height + 2 * margin, columns = sizes.width + 2 * margin;
  const int64_t map = static_cast<int64_t>(rows) * columns;
  const T* source = conv_out + plane * groups * map;
  block.each_thread([&](int thread) {
    const int64_t position = static_cast<int64_t>(strip) * block.threads() + thread;
    if (position >= sizes.plane_size()) return;
    const int y = static_cast<int>(position / sizes.width);
    const int x = static_cast<int>(position % sizes.width);
    Acc wide = Acc(0), tall = Acc(0), small = Acc(0);
    for (int group = 0; group < groups; ++group) {
      const T* own = source + group * map;
      const int* shifts = shared + group * 2 * reps;
      for (int rep = 0; rep < reps; ++rep) {
        const int column = x - shifts[rep];
        const int row = y - shifts[reps + rep];
        if (in_range(column, columns)) {
          wide += Convert<T>::load(own[(y + margin) * columns + column]);
        }
        if (in_range(row, rows)) tall += Convert<T>::load(own[row * columns + x + margin]);
      }
    }
    for (int rep = 0; rep < reps; ++rep) {
      small += Convert<T>::load(source[picked[rep] * map + (y + margin) * columns + x + margin]);
    }
    const int64_t target = plane * sizes.plane_size() + position;
    out_h[target] = Convert<T>::store(wide);
    out_v[target] = Convert<T>::store(tall);
    out_i[target] = Convert<T>::store(small);
  });
}

// Block program: the gradient of one strip of one group's map. `map_index` counts the
// B * C * nk maps.
template <typename T, typename Block>
MMSW_DEVICE void shift_add_grad_strip(
    const Block& block, int64_t map_index, int strip, const ConvSizes& sizes, const T* grad_h,
    const T* grad_v, const T* grad_i, const int* shift_hv, const int64_t* identity_index,
    T* grad_conv_out, int* shared) {
  using Acc = typename Accumulator<T>::type;
  const int reps = sizes.reps, groups = sizes.groups;
  const int64_t plane = map_index / groups;
  const int group = static_cast<int>(map_index % groups);
  int* picked = shared + 2 * reps * groups;
  load_pattern(
      block, static_cast<int>(plane % sizes.channels), sizes, shift_hv, identity_index, shared,
      picked);
  const int margin = conv_margin(sizes.side);
  const int columns = sizes.width + 2 * margin;
  const int64_t map = static_cast<int64_t>(sizes.height + 2 * margin) * columns;
  const int64_t offset = plane * sizes.plane_size();
  block.each_thread([&](int thread) {
    const int64_t position = static_cast<int64_t>(strip) * block.threads() + thread;
    if (position >= map) return;
    const int row = static_cast<int>(position / columns);
    const int column = static_cast<int>(position % columns);
    const int y = row - margin, x = column - margin;
    const int* shifts = shared + group * 2 * reps;
    Acc sum = Acc(0);
    for (int rep = 0; rep < reps; ++rep) {
      const int from_x = column + shifts[rep];
      const int from_y = row + shifts[reps + rep];
      if (in_range(y, sizes.height) && in_range(from_x, sizes.width)) {
        sum += Convert<T>::load(grad_h[offset + y * sizes.width + from_x]);
      }
      if (in_range(from_y, sizes.height) && in_range(x, sizes.width)) {
        sum += Convert<T>::load(grad_v[offset + from_y * sizes.width + x]);
      }
      if (picked[rep] == group && in_range(y, sizes.height) && in_range(x, sizes.width)) {
        sum += Convert<T>::load(grad_i[offset + y * sizes.width + x]);
      }
    }
    grad_conv_out[map_index * map + position] = Convert<T>::store(sum);
  });
}

}  // namespace mmsw
