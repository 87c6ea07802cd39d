// The fused operator on one tile: forward pass, gradient of the map, and the folded form.
//
//              inputs                          outputs
//   forward    one map for all                 three: wide arm, tall arm, identity
//   gradient   three                           one, through the flipped blocks
//   folded     one map for both arms           one, and a bias
//   strips     one map for all                 one, and a bias; see strips.cuh
#pragma once

#include "strips.cuh"

namespace mmsw {

// Slots that one thread adds at a time where they lie side by side: their rows are read once.
template <int kSide>
constexpr int kTogether = kSide == 3 ? 2 : 1;

struct ConvPlan {
  TilePlan tiles;
  int stage_slots;  // slots whose input is held at a time; 0 if not even one fits
  int stride;       // of the bands of two images
  int threads;
  int shared_values;
};

// Nothing fits where a small kernel has more than about 40 pixels.
inline ConvPlan plan_conv(const MapSizes& map, const Cross& cross, int value_bytes) {
  ConvPlan plan = {};
  plan.tiles = plan_tiles(map);
  const int tile = plan.tiles.tile, side = cross.side;
  // More slots than this never see the map at the same time.
  const int useful = ceil_div(max_of(map.height, map.width) + tile + side - 2, side);
  const int most = min_of(min_of(max_of(cross.wide.slots, cross.tall.slots), kMostStaged), useful);
  int& images = plan.tiles.images;
  for (; images > 0; images /= 2) {
    for (int slots = most; slots > 0; --slots) {
      plan.stride = band_stride(band_rows(tile, slots * side), band_pitch(tile, side));
      plan.shared_values = images * plan.stride + slots * block_pitch(side);
      if (static_cast<int64_t>(plan.shared_values) * value_bytes > kSharedBytes) continue;
      plan.stage_slots = slots;
      plan.tiles.image_groups = ceil_div(map.batch, images);
      plan.threads = max_of(kWarp, images * patches_of(tile));
      return plan;
    }
  }
  return plan;
}

template <typename T>
struct ConvTask {
  using Acc = typename Accumulator<T>::type;
  MapSizes map;
  Cross cross;
  ConvPlan plan;
  const Acc* blocks;
  const uint32_t* occupied;
  const T* inputs[3];  // wide arm, tall arm, identity
  T* outputs[3];       // nullptr: added to the next one
  const T* bias;       // or nullptr

  MMSW_HOST_DEVICE int64_t work() const { return plan.tiles.items() * map.channels; }
};

template <typename T>
struct StripsTask : ConvTask<T> {
  Strips strips;
};

template <typename Acc>
struct PatchSums {
  Acc values[kRows][kColumns];
};

// Adds kSlots neighbouring slots to a patch. `corner` is the input of tap 0, n = 0 of its first
// output. Every input is read once and used for all outputs and taps that meet it.
template <int kSide, int kSlots, typename Acc>
MMSW_DEVICE void add_slots(const Acc* corner, int pitch, const Acc* blocks, PatchSums<Acc>& sums) {
  constexpr int kTaps = kSide * kSlots, kBlock = kSide * kSide, kPitch = (kBlock + 3) / 4 * 4;
  Acc weight[kSlots * kPitch];
  MMSW_UNROLL
  for (int r = 0; r < kRows + kTaps - 1; ++r) {
    if (r % kSide == 0 && r < kTaps) {
      MMSW_UNROLL
      for (int i = 0; i < kPitch; i += 4) {
        const Pack<Acc, 4> four = load_pack<4>(blocks + r / kSide * kPitch + i);
        MMSW_UNROLL
        for (int j = 0; j < 4; ++j) weight[r / kSide * kPitch + i + j] = four.values[j];
      }
    }
    Acc input[kSide + 1];
    load_pairs(corner + r * pitch, input);
    MMSW_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) {
      const int k = r - tap;
      if (k < 0 || k >= kRows) continue;
      MMSW_UNROLL
      for (int n = 0; n < kSide; ++n) {
        const Acc factor = weight[tap / kSide * kPitch + tap % kSide * kSide + n];
        sums.values[k][0] += factor * input[n];
        sums.values[k][1] += factor * input[n + 1];
      }
    }
  }
}

// The same for one slot of any side.
template <typename Acc>
MMSW_DEVICE void add_any_slot(const Acc* corner, int pitch, int side, const Acc* block,
                              PatchSums<Acc>& sums) {
  MMSW_NO_UNROLL
  for (int tap = 0; tap < side; ++tap) {
    Acc left[kRows];
    MMSW_UNROLL
    for (int k = 0; k < kRows; ++k) left[k] = corner[(k + tap) * pitch];
    MMSW_NO_UNROLL
    for (int n = 0; n < side; ++n) {
      const Acc factor = block[tap * side + n];
      MMSW_UNROLL
      for (int k = 0; k < kRows; ++k) {
        const Acc right = corner[(k + tap) * pitch + n + 1];
        sums.values[k][0] += factor * left[k];
        sums.values[k][1] += factor * right;
        left[k] = right;
      }
    }
  }
}

// Neighbouring slots whose input is held at a time; a bit for each that is not zero.
struct Stage {
  int low, count;
  uint32_t bits;
};

// The next slots from `begin` on, at most `most`, and none beyond a gap of empty slots that is so
// wide that the rows in it are needed by nobody.
MMSW_DEVICE Stage next_stage(const uint32_t* words, int begin, int end, int most, int gap) {
  for (; begin < end; begin += 32) {
    uint32_t bits = mask_at(words, begin, end);
    if (bits == 0) continue;
    const int low = begin + lowest_bit(bits);
    bits = mask_at(words, low, end) & low_bits(most);
    int count = highest_bit(bits) + 1;
    if (count - count_bits(bits) < gap) return {low, count, bits};
    count = 1;
    for (uint32_t rest = bits & ~uint32_t{1}; rest != 0; rest &= rest - 1) {
      const int slot = lowest_bit(rest);
      if (slot - count >= gap) break;
      count = slot + 1;
    }
    return {low, count, bits & low_bits(count)};
  }
  return {end, 0, 0};
}

// Rows of a map, for some taps of an arm from `row` on, that the bands hold.
template <typename T>
struct Held {
  const T* input;
  int row, taps;
};

// One tile of some images of one channel. `kSide` and `kTile` are 0 where they are known late.
template <typename T, int kSide, int kTile, typename Team>
struct ConvTile {
  using Acc = typename Accumulator<T>::type;
  const Team& team;
  const ConvTask<T>& task;
  int channel;
  Place place;
  Acc* bands;   // [images][stride]
  Acc* blocks;  // [stage_slots][block_pitch]
  typename Team::template PerThread<PatchSums<Acc>> sums;

  MMSW_DEVICE ConvTile(const Team& own_team, const ConvTask<T>& own_task, int64_t work, Acc* shared)
      : team(own_team),
        task(own_task),
        channel(static_cast<int>(split(work, task.plan.tiles.items()).quotient)),
        place(place_of(task.plan.tiles, split(work, task.plan.tiles.items()).rest)),
        bands(shared),
        blocks(bands + task.plan.tiles.images * task.plan.stride),
        sums(own_team) {}

  MMSW_DEVICE int side() const { return kSide > 0 ? kSide : task.cross.side; }
  MMSW_DEVICE int tile() const { return kTile > 0 ? kTile : task.plan.tiles.tile; }
  MMSW_DEVICE int pitch() const { return band_pitch(tile(), side()); }

  MMSW_DEVICE bool has_patch(const Patch& patch) const {
    return patch.image < task.plan.tiles.images && place.image0 + patch.image < task.map.batch;
  }
  MMSW_DEVICE int64_t plane_of(const Patch& patch) const {
    return (static_cast<int64_t>(place.image0 + patch.image) * task.map.channels + channel) *
           task.map.plane_size();
  }
  MMSW_DEVICE Acc* corner_of(const Patch& patch, int row, int column) const {
    return bands + patch.image * task.plan.stride + row * pitch() + column;
  }

  MMSW_DEVICE void run() {
    const Acc start = task.bias == nullptr ? Acc(0) : Convert<T>::load(task.bias[channel]);
    team.each_thread([&](int thread) { clear(thread, start); });
    const ArmView tall = tall_view(task.map, place);
    Held<T> held = {nullptr, 0, 0};
    MMSW_NO_UNROLL
    for (int i = 0; i < 3; ++i) {
      if (i < 2 || task.cross.identity) {
        const Arm arm = i == 0 ? task.cross.wide : i == 1 ? task.cross.tall : task.cross.small();
        run_arm(arm, i == 0 ? wide_view(task.map, place) : tall, task.inputs[i], held);
      }
      if (i == 0) {
        transpose();
        held.input = nullptr;
      }
      if (task.outputs[i] != nullptr) {
        store(task.outputs[i], tall);
        team.each_thread([&](int thread) { clear(thread, Acc(0)); });
      }
    }
  }

  // The strips of a depthwise kernel instead of a cross.
  MMSW_DEVICE void run_strips(const Strips& strips) {
    const Acc start = task.bias == nullptr ? Acc(0) : Convert<T>::load(task.bias[channel]);
    team.each_thread([&](int thread) { clear(thread, start); });
    const ArmView tall = tall_view(task.map, place);
    MMSW_NO_UNROLL
    for (int strip = 0; strip < strips.count(); ++strip) {
      ArmView view = strips.wide ? wide_view(task.map, place) : tall;
      view.column0 += strips.aside(strip);
      if (view.column0 - side() / 2 >= view.columns || view.column0 + side() / 2 + tile() <= 0) {
        continue;  // it only meets padding
      }
      Held<T> held = {nullptr, 0, 0};
      run_arm(strips.arm(strip), view, task.inputs[0], held);
    }
    if (strips.wide) transpose();
    store(task.outputs[0], tall);
  }

  MMSW_DEVICE void clear(int thread, Acc start) {
    MMSW_UNROLL
    for (int k = 0; k < kRows; ++k) {
      MMSW_UNROLL
      for (int c = 0; c < kColumns; ++c) sums[thread].values[k][c] = start;
    }
  }

  // Adds one arm. Slots that are all zero, or see nothing of the map, are neither loaded nor
  // computed. The identity finds its rows among those of the tall arm, if that had the same map.
  MMSW_DEVICE void run_arm(const Arm& arm, const ArmView& view, const T* input, Held<T>& held) {
    const SlotRange range = visible_slots(view, tile(), arm.first - arm.pad, side(), arm.slots);
    const uint32_t* words =
        task.occupied + static_cast<int64_t>(channel) * task.cross.words() + arm.word0;
    const Acc* own_blocks =
        task.blocks +
        (static_cast<int64_t>(channel) * task.cross.blocks() + arm.block0) * block_pitch(side());
    const int gap = ceil_div(tile() + side() - 1, side());
    MMSW_NO_UNROLL
    for (int begin = range.low;;) {
      const Stage stage = next_stage(words, begin, range.high, task.plan.stage_slots, gap);
      if (stage.count == 0) return;
      begin = stage.low + stage.count;
      const int row = view.row0 + arm.first + arm.start(stage.low);
      const int taps = arm.start(begin - 1) + side() - arm.start(stage.low);
      const bool there =
          held.input == input && held.row <= row && row + taps <= held.row + held.taps;
      if (!there) held = {input, row, taps};
      team.each_thread([&](int thread) {
        if (!there) load(thread, view, held);
        const Acc* source = own_blocks + stage.low * block_pitch(side());
        for (int i = thread; i < stage.count * block_pitch(side()); i += team.threads()) {
          blocks[i] = source[i];
        }
      });
      team.each_thread([&](int thread) { add_stage(thread, arm, stage, row - held.row); });
    }
  }

  MMSW_DEVICE void load(int thread, const ArmView& view, const Held<T>& wanted) {
    const Patch patch = patch_of(thread, tile());
    if (!has_patch(patch)) return;
    const Rectangle rectangle = {wanted.row, view.column0 - side() / 2,
                                 band_rows(tile(), wanted.taps), tile() + side() - 1};
    load_band(thread % patches_of(tile()), highest_bit(patches_of(tile())),
              wanted.input + plane_of(patch), view, rectangle, pitch(), corner_of(patch, 0, 0));
  }

  MMSW_DEVICE void add_stage(int thread, const Arm& arm, const Stage& stage, int offset) {
    const Patch patch = patch_of(thread, tile());
    if (!has_patch(patch)) return;
    const Acc* corner = corner_of(patch, patch.row + offset, patch.column);
    uint32_t bits = stage.bits;
    MMSW_NO_UNROLL
    while (bits != 0) {
      const int i = lowest_bit(bits), slot = stage.low + i;
      const Acc* from = corner + (arm.start(slot) - arm.start(stage.low)) * pitch();
      const Acc* block = blocks + i * block_pitch(side());
      bits &= bits - 1;
      if constexpr (kSide == 0) {
        add_any_slot(from, pitch(), side(), block, sums[thread]);
      } else {
        const bool neighbours =
            i < 31 && bits >> (i + 1) & 1 && arm.start(slot + 1) == arm.start(slot) + kSide;
        if (kTogether<kSide> == 2 && neighbours) {
          bits &= bits - 1;
          add_slots<kSide, kTogether<kSide>>(from, pitch(), block, sums[thread]);
        } else {
          add_slots<kSide, 1>(from, pitch(), block, sums[thread]);
        }
      }
    }
  }

  // From the sums of a tile in the wide arm's view to those in the tall arm's view.
  MMSW_DEVICE void transpose() {
    team.each_thread([&](int thread) {
      const Patch patch = patch_of(thread, tile());
      if (!has_patch(patch)) return;
      Acc* target = corner_of(patch, patch.row, patch.column);
      MMSW_UNROLL
      for (int k = 0; k < kRows; ++k) {
        MMSW_UNROLL
        for (int c = 0; c < kColumns; ++c) target[k * pitch() + c] = sums[thread].values[k][c];
      }
    });
    team.each_thread([&](int thread) {
      const Patch patch = patch_of(thread, tile());
      if (!has_patch(patch)) return;
      const Acc* source = corner_of(patch, patch.column, patch.row);
      MMSW_UNROLL
      for (int k = 0; k < kRows; ++k) {
        MMSW_UNROLL
        for (int c = 0; c < kColumns; ++c) sums[thread].values[k][c] = source[c * pitch() + k];
      }
    });
  }

  MMSW_DEVICE void store(T* output, const ArmView& view) {
    team.each_thread([&](int thread) {
      const Patch patch = patch_of(thread, tile());
      const int x = view.column0 + patch.column, y = view.row0 + patch.row;
      if (!has_patch(patch) || x >= view.columns) return;
      T* target = output + plane_of(patch) + static_cast<int64_t>(y) * view.columns + x;
      const bool even = view.columns % 2 == 0;  // then every patch begins at a multiple of two
      const int rows = min_of(kRows, view.rows - y);
      MMSW_UNROLL
      for (int k = 0; k < kRows; ++k) {
        const Pack<T, 2> two = {{Convert<T>::store(sums[thread].values[k][0]),
                                 Convert<T>::store(sums[thread].values[k][1])}};
        if (even && k < rows) *reinterpret_cast<Pack<T, 2>*>(target) = two;
        if (!even && k < rows) target[0] = two.values[0];
        if (!even && k < rows && x + 1 < view.columns) target[1] = two.values[1];
        target += view.columns;
      }
    });
  }
};

#ifdef __CUDACC__

constexpr int kConvThreads = kMaxTile * kMaxTile / (kRows * kColumns);

// Ten blocks per multiprocessor leave 96 registers for a thread.
template <typename T, int kSide, int kTile>
__global__ void __launch_bounds__(kConvThreads, 10)
    conv_kernel(const __grid_constant__ ConvTask<T> task) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* shared = reinterpret_cast<typename Accumulator<T>::type*>(shared_bytes);
  for (int64_t work = blockIdx.x; work < task.work(); work += gridDim.x) {
    const DeviceTeam team;
    ConvTile<T, kSide, kTile, DeviceTeam>(team, task, work, shared).run();
  }
}

template <typename T, int kSide, int kTile>
__global__ void __launch_bounds__(kConvThreads, 10)
    strips_kernel(const __grid_constant__ StripsTask<T> task) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* shared = reinterpret_cast<typename Accumulator<T>::type*>(shared_bytes);
  for (int64_t work = blockIdx.x; work < task.work(); work += gridDim.x) {
    const DeviceTeam team;
    ConvTile<T, kSide, kTile, DeviceTeam>(team, task, work, shared).run_strips(task.strips);
  }
}

#endif

}  // namespace mmsw
