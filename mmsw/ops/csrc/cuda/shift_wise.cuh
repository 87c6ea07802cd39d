// The fused operator: tile loops of the forward pass and of the input gradient.
//
// Per channel the small kernels are placed on the arms of a cross (see mmsw/ops/assemble.py). An
// arm is `groups` slots of N x N taps that tile it without overlap. Slot `i`, tap `t` along the arm
// reads the map at offset `i * N + t - first` along the arm; tap `s` across it at `s - N / 2`.
// "Units" of a channel: slots of the wide arm, slots of the tall arm, the identity kernel. A unit is
// stored as [t][s], the wide arm too, which is why it can run as the tall arm of the transposed map.
#pragma once

#include "block.cuh"

namespace mmsw {

// Outputs along the arm that one thread computes; divides every tile side.
constexpr int kOutputs = 8;
constexpr int kMaxTile = 32;
// Shared memory of a block stays below what every GPU grants without asking.
constexpr int kSharedBytes = 46 * 1024;

struct ConvSizes {
  int batch, channels, height, width;
  int side;    // N
  int groups;  // nk, slots of an arm
  int reps;    // R
  int big;     // M

  MMSW_HOST_DEVICE int units() const { return 2 * groups + 1; }
  MMSW_HOST_DEVICE int taps() const { return side * side; }
  MMSW_HOST_DEVICE int64_t planes() const { return static_cast<int64_t>(batch) * channels; }
  MMSW_HOST_DEVICE int64_t plane_size() const { return static_cast<int64_t>(height) * width; }
};

// How far before the centre the first tap of an arm lies; `flipped` is the arm of the gradient.
MMSW_HOST_DEVICE int first_offset(const ConvSizes& sizes, bool flipped) {
  const int before = sizes.big / 2;
  return flipped ? sizes.groups * sizes.side - 1 - before : before;
}

MMSW_HOST_DEVICE int slot_of_shift(const ConvSizes& sizes, int shift) {
  return (sizes.big / 2 - (sizes.side - 1) - shift) / sizes.side;
}

// Smallest of 8, 16, 32 that holds the map, 32 for larger maps.
inline int tile_side(int height, int width) {
  int side = kOutputs;
  while (side < kMaxTile && side < max_of(height, width)) side *= 2;
  return side;
}

MMSW_HOST_DEVICE int band_pitch(int tile, int side) { return (tile + side - 1) | 1; }

MMSW_HOST_DEVICE int band_rows(int tile, int side, int slots) { return tile + slots * side - 1; }

// A part of the arm that is held in shared memory at a time, and the tile that it serves.
struct ConvPlan {
  int tile;         // side of the square of outputs of one block
  int stage_slots;  // slots whose input is loaded at a time
  int tile_rows, tile_columns;

  MMSW_HOST_DEVICE int tiles() const { return tile_rows * tile_columns; }
};

inline int64_t conv_shared_bytes(const ConvSizes& sizes, int tile, int slots, int value_bytes) {
  const int64_t band = static_cast<int64_t>(band_rows(tile, sizes.side, slots)) *
                       band_pitch(tile, sizes.side);
  return (band + static_cast<int64_t>(slots) * sizes.taps()) * value_bytes +
         static_cast<int64_t>(slots) * sizeof(int);
}

// `stage_slots` is 0 when not even one slot fits (a small kernel of more than about 40 pixels).
inline ConvPlan plan_conv(const ConvSizes& sizes, int value_bytes) {
  ConvPlan plan;
  plan.tile = tile_side(sizes.height, sizes.width);
  plan.stage_slots = sizes.groups;
  while (plan.stage_slots > 0 &&
         conv_shared_bytes(sizes, plan.tile, plan.stage_slots, value_bytes) > kSharedBytes) {
    --plan.stage_slots;
  }
  plan.tile_rows = ceil_div(sizes.height, plan.tile);
  plan.tile_columns = ceil_div(sizes.width, plan.tile);
  return plan;
}

inline int conv_threads(const ConvPlan& plan) {
  return max_of(kWarp, plan.tile * plan.tile / kOutputs);
}

// A plane as one arm sees it: rows run along the arm, columns across it.
struct ArmView {
  int rows, columns;
  int row_stride, column_stride;
  int row0, column0;  // corner of the tile
};

MMSW_HOST_DEVICE ArmView tall_view(const ConvSizes& sizes, int y0, int x0) {
  return {sizes.height, sizes.width, sizes.width, 1, y0, x0};
}

MMSW_HOST_DEVICE ArmView wide_view(const ConvSizes& sizes, int y0, int x0) {
  return {sizes.width, sizes.height, 1, sizes.width, x0, y0};
}

// Slots [low, high) of which at least one tap of the tile can meet the map.
struct SlotRange {
  int low, high;
};

MMSW_HOST_DEVICE SlotRange visible_slots(
    const ArmView& view, int tile, int first, int side, int slots) {
  const int tile_rows = min_of(tile, view.rows - view.row0);
  // Slot i reads rows row0 - first + i * side ... + tile_rows + side - 2.
  const int before = first - view.row0 - (tile_rows - 1) - (side - 1);
  const int last = view.rows - 1 + first - view.row0;
  SlotRange range;
  range.low = before > 0 ? ceil_div(before, side) : 0;
  range.high = last < 0 ? 0 : min_of(slots, last / side + 1);
  return range;
}

// Rows of the plane from `row` on into `band`, with the columns that the taps across the arm need;
// what lies outside the plane is zero. Neighbouring threads read neighbouring addresses.
template <typename T, typename Acc>
MMSW_DEVICE void load_band(
    int thread, int threads, const T* plane, const ArmView& view, int row, int rows, int columns,
    int column_margin, int pitch, Acc* band) {
  const bool along_rows = view.row_stride == 1;
  const int fast_count = along_rows ? rows : columns;
  const int slow_count = along_rows ? columns : rows;
  for (int slow = thread / kWarp; slow < slow_count; slow += threads / kWarp) {
    for (int fast = thread % kWarp; fast < fast_count; fast += kWarp) {
      const int r = along_rows ? fast : slow;
      const int s = along_rows ? slow : fast;
      const int y = row + r;
      const int x = view.column0 - column_margin + s;
      const bool inside = y >= 0 && y < view.rows && x >= 0 && x < view.columns;
      band[r * pitch + s] =
          inside ? Convert<T>::load(plane[y * view.row_stride + x * view.column_stride]) : Acc(0);
    }
  }
}

template <typename Acc>
struct Outputs {
  Acc values[kOutputs];
};

// Adds one slot to the outputs of a thread. `corner` is the input of tap (0, 0) of the first output.
// With kSide > 0 every input is read once and used for all outputs and taps that meet it.
template <typename Acc, int kSide>
MMSW_DEVICE void add_slot(
    const Acc* corner, int pitch, const Acc* unit, int side, Outputs<Acc>& outputs) {
  if constexpr (kSide > 0) {
    Acc weight[kSide * kSide];
    MMSW_UNROLL
    for (int tap = 0; tap < kSide * kSide; ++tap) weight[tap] = unit[tap];
    MMSW_UNROLL
    for (int r = 0; r < kOutputs + kSide - 1; ++r) {
      Acc input[kSide];
      MMSW_UNROLL
      for (int s = 0; s < kSide; ++s) input[s] = corner[r * pitch + s];
      MMSW_UNROLL
      for (int t = 0; t < kSide; ++t) {
        const int k = r - t;
        if (k < 0 || k >= kOutputs) continue;
        MMSW_UNROLL
        for (int s = 0; s < kSide; ++s) outputs.values[k] += weight[t * kSide + s] * input[s];
      }
    }
  } else {
    for (int t = 0; t < side; ++t) {
      for (int s = 0; s < side; ++s) {
        const Acc weight = unit[t * side + s];
        MMSW_UNROLL
        for (int k = 0; k < kOutputs; ++k) {
          outputs.values[k] += weight * corner[(k + t) * pitch + s];
        }
      }
    }
  }
}

// Runs one arm over one tile: outputs of a thread are rows `group * kOutputs + k` of one column.
// Slots that are all zero, or see nothing of the map, are neither loaded nor computed.
template <typename T, typename Acc, int kSide, typename Block>
MMSW_DEVICE void run_arm(
    const Block& block, typename Block::template PerThread<Outputs<Acc>>& outputs,
    const ConvSizes& sizes, const ConvPlan& plan, const ArmView& view, int first, int slots,
    const T* plane, const Acc* units, const uint8_t* occupied, Acc* band, Acc* stage_units,
    int* stage_occupied) {
  const int side = kSide > 0 ? kSide : sizes.side;
  const int taps = side * side;
  const int tile = plan.tile;
  const int pitch = band_pitch(tile, side);
  const SlotRange range = visible_slots(view, tile, first, side, slots);
  int low = range.low;
  while (true) {
    while (low < range.high && !occupied[low]) ++low;
    if (low >= range.high) break;
    int high = min_of(low + plan.stage_slots, range.high);
    while (!occupied[high - 1]) --high;

    block.each_thread([&](int thread) {
      load_band(
          thread, block.threads(), plane, view, view.row0 - first + low * side,
          band_rows(tile, side, high - low), tile + side - 1, side / 2, pitch, band);
      for (int i = thread; i < (high - low) * taps; i += block.threads()) {
        stage_units[i] = units[static_cast<int64_t>(low) * taps + i];
      }
      for (int i = thread; i < high - low; i += block.threads()) {
        stage_occupied[i] = occupied[low + i];
      }
    });
    block.each_thread([&](int thread) {
      const int column = thread % tile;
      const int group = thread / tile;
      if (group * kOutputs >= tile) return;
      const Acc* corner = band + group * kOutputs * pitch + column;
      for (int i = 0; i < high - low; ++i) {
        if (!stage_occupied[i]) continue;
        add_slot<Acc, kSide>(
            corner + i * side * pitch, pitch, stage_units + i * taps, side, outputs[thread]);
      }
    });
    low = high;
  }
}

template <typename Acc, typename Block>
MMSW_DEVICE void clear_outputs(
    const Block& block, typename Block::template PerThread<Outputs<Acc>>& outputs) {
  block.each_thread([&](int thread) {
    MMSW_UNROLL
    for (int k = 0; k < kOutputs; ++k) outputs[thread].values[k] = Acc(0);
  });
}

// From the outputs of a tile in the wide arm's view to those in the tall arm's view.
template <typename Acc, typename Block>
MMSW_DEVICE void transpose_outputs(
    const Block& block, typename Block::template PerThread<Outputs<Acc>>& outputs, int tile,
    int pitch, Acc* band) {
  block.each_thread([&](int thread) {
    const int column = thread % tile;
    const int group = thread / tile;
    if (group * kOutputs >= tile) return;
    MMSW_UNROLL
    for (int k = 0; k < kOutputs; ++k) {
      band[(group * kOutputs + k) * pitch + column] = outputs[thread].values[k];
    }
  });
  block.each_thread([&](int thread) {
    const int column = thread % tile;
    const int group = thread / tile;
    if (group * kOutputs >= tile) return;
    MMSW_UNROLL
    for (int k = 0; k < kOutputs; ++k) {
      outputs[thread].values[k] = band[column * pitch + group * kOutputs + k];
    }
  });
}

template <typename T, typename Acc, typename Block>
MMSW_DEVICE void store_outputs(
    const Block& block, typename Block::template PerThread<Outputs<Acc>>& outputs, int tile,
    const ArmView& view, T* plane) {
  block.each_thread([&](int thread) {
    const int x = view.column0 + thread % tile;
    const int y0 = view.row0 + thread / tile * kOutputs;
    if (thread / tile * kOutputs >= tile || x >= view.columns) return;
    MMSW_UNROLL
    for (int k = 0; k < kOutputs; ++k) {
      if (y0 + k < view.rows) {
        plane[(y0 + k) * view.row_stride + x] = Convert<T>::store(outputs[thread].values[k]);
      }
    }
  });
}

// Three maps [B, C, H, W]; for the forward pass all inputs are the same map, the gradient has one
// output.
template <typename T>
struct ConvMaps {
  const T* wide_in;
  const T* tall_in;
  const T* small_in;
  T* wide_out;
  T* tall_out;
  T* small_out;
};

// Block program: one tile of one plane. Forward: three outputs of one input; otherwise the gradient of
// the input, one output of three inputs, with the units flipped by `assemble_channel`.
template <typename T, int kSide, typename Block>
MMSW_DEVICE void conv_tile(
    const Block& block, bool forward, int64_t work, const ConvSizes& sizes, const ConvPlan& plan,
    const ConvMaps<T>& maps, const typename Accumulator<T>::type* units, const uint8_t* occupied,
    typename Accumulator<T>::type* shared) {
  using Acc = typename Accumulator<T>::type;
  const int64_t plane = work / plan.tiles();
  const int tile_index = static_cast<int>(work % plan.tiles());
  const int y0 = tile_index / plan.tile_columns * plan.tile;
  const int x0 = tile_index % plan.tile_columns * plan.tile;
  const int channel = static_cast<int>(plane % sizes.channels);
  const int64_t offset = plane * sizes.plane_size();

  const int pitch = band_pitch(plan.tile, sizes.side);
  Acc* band = shared;
  Acc* stage_units = band + band_rows(plan.tile, sizes.side, plan.stage_slots) * pitch;
  int* stage_occupied = reinterpret_cast<int*>(stage_units + plan.stage_slots * sizes.taps());

  const int first = first_offset(sizes, !forward);
  const ArmView view = tall_view(sizes, y0, x0);
  typename Block::template PerThread<Outputs<Acc>> outputs(block);
  clear_outputs<Acc>(block, outputs);
  MMSW_NO_UNROLL
  for (int arm = 0; arm < 3; ++arm) {
    const int64_t unit = static_cast<int64_t>(channel) * sizes.units() + arm * sizes.groups;
    const T* input = arm == 0 ? maps.wide_in : arm == 1 ? maps.tall_in : maps.small_in;
    T* target = arm == 0 ? maps.wide_out : arm == 1 ? maps.tall_out : maps.small_out;
    run_arm<T, Acc, kSide>(
        block, outputs, sizes, plan, arm == 0 ? wide_view(sizes, y0, x0) : view,
        arm == 2 ? sizes.side / 2 : first, arm == 2 ? 1 : sizes.groups, input + offset,
        units + unit * sizes.taps(), occupied + unit, band, stage_units, stage_occupied);
    if (arm == 0) transpose_outputs<Acc>(block, outputs, plan.tile, pitch, band);
    if (forward || arm == 2) {
      store_outputs<T, Acc>(block, outputs, plan.tile, view, target + offset);
      clear_outputs<Acc>(block, outputs);
    }
  }
}

// Block program: the units of one channel, gathered without atomics, and which of them hold anything
// but zeros. `group_at` is scratch for 2 * R * nk integers.
template <typename T, typename Block>
MMSW_DEVICE void assemble_channel(
    const Block& block, int channel, const ConvSizes& sizes, bool flipped, const T* weight,
    const int* shift_hv, const int64_t* identity_index, typename Accumulator<T>::type* units,
    uint8_t* occupied, int* group_at) {
  using Acc = typename Accumulator<T>::type;
  const int groups = sizes.groups, reps = sizes.reps, side = sizes.side, taps = sizes.taps();
  const T* kernels = weight + static_cast<int64_t>(channel) * groups * taps;
  const int* shifts = shift_hv + static_cast<int64_t>(channel) * groups * 2 * reps;
  const int64_t* picked = identity_index + static_cast<int64_t>(channel) * reps;
  Acc* own_units = units + static_cast<int64_t>(channel) * sizes.units() * taps;
  uint8_t* own_occupied = occupied + static_cast<int64_t>(channel) * sizes.units();

  block.each_thread([&](int thread) {
    for (int i = thread; i < 2 * reps * groups; i += block.threads()) {
      const int group = i / (2 * reps), draw = i % (2 * reps);
      const int slot = slot_of_shift(sizes, shifts[i]);
      if (slot >= 0 && slot < groups) group_at[draw * groups + slot] = group;
    }
  });
  block.each_thread([&](int thread) {
    for (int i = thread; i < sizes.units() * taps; i += block.threads()) {
      const int unit = i / taps, tap = i % taps;
      const int arm = unit / groups, slot = unit % groups;
      const int t = tap / side, s = tap % side;
      Acc sum = Acc(0);
      for (int rep = 0; rep < reps; ++rep) {
        const int group = arm == 2 ? static_cast<int>(picked[rep] % groups)
                                   : group_at[(arm * reps + rep) * groups + slot];
        const int source = arm == 0 ? s * side + t : tap;
        sum += Convert<T>::load(kernels[static_cast<int64_t>(group) * taps + source]);
      }
      const int target = !flipped ? i
                         : arm == 2
                             ? unit * taps + taps - 1 - tap
                             : (arm * groups + groups - 1 - slot) * taps + taps - 1 - tap;
      own_units[target] = sum;
    }
  });
  block.each_thread([&](int thread) {
    for (int unit = thread; unit < sizes.units(); unit += block.threads()) {
      bool any = false;
      for (int tap = 0; tap < taps; ++tap) any = any || own_units[unit * taps + tap] != Acc(0);
      own_occupied[unit] = any;
    }
  });
}

}  // namespace mmsw
