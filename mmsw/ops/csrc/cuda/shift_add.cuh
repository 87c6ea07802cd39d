// Shift and add, the second step alone, and its gradient. Both gather, so neither needs atomics.
#pragma once

#include "tile.cuh"

namespace mmsw {

template <typename T>
struct ShiftAddTask {
  MapSizes map;  // of the outputs
  Pattern pattern;
  int strips;         // of `threads` positions, of a map of the result
  const T* input[3];  // conv_out; or the gradients: horizontal, vertical, identity
  T* output[3];       // horizontal, vertical, identity; or the gradient of conv_out

  MMSW_HOST_DEVICE int conv_columns() const { return map.width + 2 * pattern.sizes.margin(); }
  MMSW_HOST_DEVICE int conv_rows() const { return map.height + 2 * pattern.sizes.margin(); }
  MMSW_HOST_DEVICE int64_t conv_size() const {
    return static_cast<int64_t>(conv_rows()) * conv_columns();
  }
};

// Integers of shared memory that both programs need.
inline int64_t shift_add_scratch(const PatternSizes& sizes) {
  return (2 * static_cast<int64_t>(sizes.groups) + 1) * sizes.reps;
}

// Shifts of one channel, [nk][2 * R], and its identity groups, [R], into shared memory.
template <typename Team>
MMSW_HOST_DEVICE int* load_pattern(const Team& team, int channel, const Pattern& pattern,
                                   int* shared) {
  const int groups = pattern.sizes.groups, columns = 2 * pattern.sizes.reps;
  int* picked = shared + groups * columns;
  team.each_thread([&](int thread) {
    for (int i = thread; i < groups * columns; i += team.threads()) {
      shared[i] = pattern.shift_of(channel, i / columns, i % columns);
    }
    for (int i = thread; i < pattern.sizes.reps; i += team.threads()) {
      picked[i] = pattern.identity_group(channel, i);
    }
  });
  return picked;
}

// One strip of one plane of the outputs.
template <typename T, typename Team>
MMSW_HOST_DEVICE void shift_add_strip(const Team& team, int64_t work, const ShiftAddTask<T>& task,
                                      int* shared) {
  using Acc = typename Accumulator<T>::type;
  const PatternSizes& sizes = task.pattern.sizes;
  const int64_t plane = work / task.strips, strip = work % task.strips;
  const int channel = static_cast<int>(plane % task.map.channels);
  const int* picked = load_pattern(team, channel, task.pattern, shared);
  const int reps = sizes.reps, margin = sizes.margin();
  const int rows = task.conv_rows(), columns = task.conv_columns();
  const T* source = task.input[0] + plane * sizes.groups * task.conv_size();
  team.each_thread([&](int thread) {
    const int64_t position = strip * team.threads() + thread;
    if (position >= task.map.plane_size()) return;
    const int y = static_cast<int>(position / task.map.width);
    const int x = static_cast<int>(position % task.map.width);
    Acc wide = Acc(0), tall = Acc(0), small = Acc(0);
    for (int group = 0; group < sizes.groups; ++group) {
      const T* own = source + group * task.conv_size();
      const int* shifts = shared + group * 2 * reps;
      for (int rep = 0; rep < reps; ++rep) {
        const int column = x - shifts[rep], row = y - shifts[reps + rep];
        if (in_range(column, columns)) {
          wide += Convert<T>::load(own[(y + margin) * columns + column]);
        }
        if (in_range(row, rows)) tall += Convert<T>::load(own[row * columns + x + margin]);
      }
    }
    for (int rep = 0; rep < reps; ++rep) {
      if (!in_range(picked[rep], sizes.groups)) continue;
      const T* own = source + picked[rep] * task.conv_size();
      small += Convert<T>::load(own[(y + margin) * columns + x + margin]);
    }
    const int64_t target = plane * task.map.plane_size() + position;
    task.output[0][target] = Convert<T>::store(wide);
    task.output[1][target] = Convert<T>::store(tall);
    task.output[2][target] = Convert<T>::store(small);
  });
}

// The gradient of one strip of one of the B * C * nk maps.
template <typename T, typename Team>
MMSW_HOST_DEVICE void shift_add_grad_strip(const Team& team, int64_t work,
                                           const ShiftAddTask<T>& task, int* shared) {
  using Acc = typename Accumulator<T>::type;
  const PatternSizes& sizes = task.pattern.sizes;
  const int64_t index = work / task.strips, strip = work % task.strips;
  const int64_t plane = index / sizes.groups;
  const int group = static_cast<int>(index % sizes.groups);
  const int channel = static_cast<int>(plane % task.map.channels);
  const int* picked = load_pattern(team, channel, task.pattern, shared);
  const int reps = sizes.reps, margin = sizes.margin();
  const int height = task.map.height, width = task.map.width;
  const int64_t offset = plane * task.map.plane_size();
  team.each_thread([&](int thread) {
    const int64_t position = strip * team.threads() + thread;
    if (position >= task.conv_size()) return;
    const int row = static_cast<int>(position / task.conv_columns());
    const int column = static_cast<int>(position % task.conv_columns());
    const int y = row - margin, x = column - margin;
    const int* shifts = shared + group * 2 * reps;
    const auto read = [&](int output, int from_y, int from_x) {
      const bool inside = in_range(from_y, height) && in_range(from_x, width);
      return inside ? Convert<T>::load(task.input[output][offset + from_y * width + from_x])
                    : Acc(0);
    };
    Acc sum = Acc(0);
    for (int rep = 0; rep < reps; ++rep) {
      sum += read(0, y, column + shifts[rep]);
      sum += read(1, row + shifts[reps + rep], x);
      if (picked[rep] == group) sum += read(2, y, x);
    }
    task.output[0][index * task.conv_size() + position] = Convert<T>::store(sum);
  });
}

}  // namespace mmsw
