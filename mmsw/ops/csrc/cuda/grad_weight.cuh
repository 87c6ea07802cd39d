// The weight gradient of the fused operator.
//
// A thread block has one channel, one part of one arm, and one chunk of the tiles:
//
//     wide arm   |slot 0 . . . . . . . . . . . slot nk-1|   horizontal gradient, transposed map
//     tall arm   |slot 0 . . . . [ identity ]. slot nk-1|   vertical gradient, and the identity's
//                |----- part 0 -----|----- part 1 ------|
//                |warp 0|warp 1|... |warp 0|warp 1|... |   kWarpSlots slots for every warp
//
// In the part that holds the middle of the tall arm one more warp owns the identity. The block
// walks over the tiles of its chunk. It loads the band of its part and the gradient of the tile;
// every lane adds its patches (kRows x kColumns outputs) to the sums of all weights of its warp,
// which stay in registers. At the end the lanes are added, in their order:
//
//     lane -> workspace[chunk][channel][arm][slot][weight] -> chunks in order -> small kernels
//
// For sides that are not compiled in, a warp owns one weight instead of whole slots, and the
// identity is a third arm with parts of its own. How the work is divided depends on sizes only, so
// results repeat bit for bit on every GPU.
//
// The strips of a depthwise kernel (strips.cuh) are as many arms of one direction, each with parts
// of its own, and there is no identity.
#pragma once

#include <type_traits>

#include "elements.cuh"
#include "grad_plan.cuh"
#include "strips.cuh"

namespace mmsw {

template <typename T>
struct GradTask {
  using Acc = typename Accumulator<T>::type;
  MapSizes map;
  PatternSizes sizes;
  Cross cross;
  GradPlan plan;
  const T* grads[3];  // horizontal, vertical, identity
  const T* x;
  const uint32_t* active;  // slots that matter to some filter, or nullptr: all
  Acc* workspace;
};

template <typename T>
struct StripsGradTask : GradTask<T> {
  Strips strips;
};

// Adds a patch to the sums of kSlots neighbouring slots; `corner` as in `add_slots`.
template <int kSide, int kSlots, typename Acc>
MMSW_DEVICE void add_patch(const Acc* corner, int pitch, const Acc* grad, int grad_pitch,
                           Acc* sums) {
  constexpr int kTaps = kSide * kSlots;
  Acc factor[kRows][kColumns];
  MMSW_UNROLL
  for (int r = 0; r < kRows + kTaps - 1; ++r) {
    if (r < kRows) load_pairs(grad + r * grad_pitch, factor[r]);
    Acc input[kSide + 1];
    load_pairs(corner + r * pitch, input);
    MMSW_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) {
      const int k = r - tap;
      if (k < 0 || k >= kRows) continue;
      MMSW_UNROLL
      for (int n = 0; n < kSide; ++n) {
        sums[tap * kSide + n] += factor[k][0] * input[n];
        sums[tap * kSide + n] += factor[k][1] * input[n + 1];
      }
    }
  }
}

// One part of one arm (one strip where kStrips) of one channel, over one chunk of the tiles.
template <typename T, int kSide, int kTile, typename Team, bool kStrips = false>
struct GradPart {
  using Task = typename std::conditional<kStrips, StripsGradTask<T>, GradTask<T>>::type;
  using Acc = typename Accumulator<T>::type;
  static constexpr int kSlots = kWarpSlots<kSide>;
  static constexpr int kSums = kSide > 0 ? kSlots * kSide * kSide : 1;
  struct Sums {
    Acc values[kSums];
  };
  // What is loaded for one tile: taps [low, high) of the arm, and for which slots.
  struct Load {
    uint32_t bits;  // slots of the part that matter
    bool small;     // the identity, too
    int low, high;
  };

  const Team& team;
  const Task& task;
  Acc* shared;
  int channel, chunk, arm;
  int aside;  // of a strip
  int piece0, pieces, slot0, slots;
  bool with_small;  // the part has the identity
  Arm own_arm;
  typename Team::template PerThread<Sums> sums;

  MMSW_DEVICE GradPart(const Team& own_team, const Task& own_task, int64_t work, Acc* memory)
      : team(own_team), task(own_task), shared(memory), sums(own_team) {
    const GradPlan& plan = task.plan;
    const Split parts = split(work, plan.all_parts());
    const Split channels = split(parts.quotient, task.map.channels);
    const int part = static_cast<int>(parts.rest);
    channel = static_cast<int>(channels.rest);
    chunk = static_cast<int>(channels.quotient);
    if constexpr (kStrips) {
      const int strip = part / plan.parts;
      arm = task.strips.wide ? 0 : 1;
      aside = task.strips.aside(strip);
      own_arm = task.strips.arm(strip);
      piece0 = (part - strip * plan.parts) * plan.warps;
    } else {
      arm = min_of(part / plan.parts, 2);
      aside = 0;
      own_arm = arm == 0 ? task.cross.wide : arm == 1 ? task.cross.tall : task.cross.small();
      piece0 = (part - arm * plan.parts) * plan.warps;
    }
    pieces = min_of(plan.warps, pieces_of(plan, task.sizes, own_arm.slots) - piece0);
    slot0 = slot_of(piece0);
    slots = min_of(own_arm.slots, slot_of(piece0 + pieces - 1) + kSlots) - slot0;
    with_small =
        !kStrips && kSide > 0 && arm == 1 && in_range(small_start() / side() - slot0, slots);
  }

  MMSW_DEVICE int side() const { return kSide > 0 ? kSide : task.sizes.side; }
  MMSW_DEVICE int tile() const { return kTile > 0 ? kTile : task.plan.tiles.tile; }
  MMSW_DEVICE int pitch() const { return band_pitch(tile(), side()); }
  MMSW_DEVICE int grad_pitch() const { return band_pitch(tile(), 1); }
  MMSW_DEVICE int slot_of(int piece) const {
    return kSide > 0 ? piece * kSlots : piece / task.sizes.block_size();
  }
  // Taps from the first one of the tall arm to that of the identity.
  MMSW_DEVICE int small_start() const { return -(side() / 2) - task.cross.tall.first; }

  MMSW_DEVICE Acc* grad_tiles(bool small) const {
    const GradPlan& plan = task.plan;
    return shared + plan.tiles.images * (plan.stride + (small ? plan.grad_stride : 0));
  }

  MMSW_DEVICE void run() {
    team.each_thread([&](int thread) {
      MMSW_UNROLL
      for (int i = 0; i < kSums; ++i) sums[thread].values[i] = Acc(0);
    });
    const int64_t begin = chunk * task.plan.chunk_items, all = task.plan.tiles.items();
    const int64_t end = begin + task.plan.chunk_items < all ? begin + task.plan.chunk_items : all;
    Place place =
        begin < end ? place_of(task.plan.tiles, begin) : Place{};  // an empty map has none
    MMSW_NO_UNROLL
    for (int64_t item = begin; item < end; ++item, place = next_place(task.plan.tiles, place)) {
      const ArmView view = arm == 0 ? wide_view(task.map, place) : tall_view(task.map, place);
      const Load wanted = needed(view);
      if (wanted.low >= wanted.high) continue;
      team.each_thread([&](int thread) { load(thread, place.image0, view, wanted); });
      team.each_thread([&](int thread) { add(thread, place.image0, wanted); });
    }
    write();
  }

  MMSW_DEVICE const uint32_t* words_of(int word) const {
    return task.active == nullptr
               ? nullptr
               : task.active + static_cast<int64_t>(channel) * task.cross.words() + word;
  }

  MMSW_DEVICE Load needed(const ArmView& view) const {
    const SlotRange seen = visible_slots(view, tile(), own_arm.first, side(), own_arm.slots);
    uint32_t bits = mask_at(words_of(own_arm.word0), slot0, slot0 + slots);
    bits &= low_bits(max_of(0, seen.high - slot0)) & ~low_bits(max_of(0, seen.low - slot0));
    const bool small = with_small && mask_at(words_of(task.cross.small().word0), 0, 1) != 0;
    Load wanted = {bits, small, 0, 0};
    if (bits != 0) {
      wanted.low = (slot0 + lowest_bit(bits)) * side();
      wanted.high = (slot0 + highest_bit(bits) + 1) * side();
    }
    if (small) {
      const int start = small_start();
      wanted.low = bits != 0 ? min_of(wanted.low, start) : start;
      wanted.high = max_of(wanted.high, start + side());
    }
    return wanted;
  }

  // Several images are loaded by a warp each. One is loaded by as many threads as the largest power
  // of two, and its gradients by those that are left, if there are any.
  MMSW_DEVICE void load(int thread, int image0, const ArmView& view, const Load& wanted) const {
    const bool several = kTile < kMaxTile && task.plan.tiles.images > 1;
    const int log_band = highest_bit(several ? kWarp : team.threads());
    const int left = several ? 0 : team.threads() - (1 << log_band);
    const int log_grad = left >= kWarp ? highest_bit(left) : log_band;
    const int lane = several ? thread % kWarp : thread;
    const int grad_lane = left >= kWarp ? thread - (1 << log_band) : lane;
    const int step = several ? team.threads() / kWarp : 1;
    const Rectangle band = {view.row0 + own_arm.first + wanted.low,
                            view.column0 - side() / 2 + (kStrips ? aside : 0),
                            band_rows(tile(), wanted.high - wanted.low), tile() + side() - 1};
    const Rectangle outputs = {view.row0, view.column0, tile(), tile()};
    MMSW_NO_UNROLL
    for (int image = several ? thread / kWarp : 0; image < images_from(image0); image += step) {
      const int64_t plane = (static_cast<int64_t>(image0 + image) * task.map.channels + channel) *
                            task.map.plane_size();
      load_band(lane, log_band, task.x + plane, view, band, pitch(),
                shared + image * task.plan.stride);
      MMSW_NO_UNROLL
      for (int small = 0; small < 2; ++small) {
        if (!(small == 1 ? wanted.small : wanted.bits != 0)) continue;
        load_band(grad_lane, log_grad, task.grads[small == 1 ? 2 : arm] + plane, view, outputs,
                  grad_pitch(), grad_tiles(small == 1) + image * task.plan.grad_stride);
      }
    }
  }

  MMSW_DEVICE int images_from(int image0) const {
    return min_of(task.plan.tiles.images, task.map.batch - image0);
  }

  MMSW_DEVICE void add(int thread, int image0, const Load& wanted) {
    const int warp = thread / kWarp, patches = patches_of(tile()) * images_from(image0);
    const bool small = !kStrips && kSide > 0 && warp == task.plan.warps;
    if (small ? !wanted.small : warp >= pieces) return;
    const int slot = slot_of(piece0 + warp);
    const uint32_t bits = small ? 1 : wanted.bits >> (slot - slot0) & low_bits(kSlots);
    const int start = (small ? small_start() : slot * side()) - wanted.low;
    MMSW_NO_UNROLL
    for (int i = thread % kWarp; i < patches && bits != 0; i += kWarp) {
      const Patch patch = patch_of(i, tile());
      const Acc* corner =
          shared + patch.image * task.plan.stride + (patch.row + start) * pitch() + patch.column;
      const Acc* grad = grad_tiles(small) + patch.image * task.plan.grad_stride +
                        patch.row * grad_pitch() + patch.column;
      add_slots_of(corner, grad, bits, piece0 + warp, sums[thread]);
    }
  }

  MMSW_DEVICE void add_slots_of(const Acc* corner, const Acc* grad, uint32_t bits, int piece,
                                Sums& own) {
    if constexpr (kSide == 0) {
      const int weight = piece % task.sizes.block_size();
      corner += weight / side() * pitch() + weight % side();
      MMSW_UNROLL
      for (int k = 0; k < kRows; ++k) {
        MMSW_UNROLL
        for (int c = 0; c < kColumns; ++c) {
          own.values[0] += grad[k * grad_pitch() + c] * corner[k * pitch() + c];
        }
      }
    } else if (kSlots > 1 && bits == low_bits(kSlots)) {
      add_patch<kSide, kSlots>(corner, pitch(), grad, grad_pitch(), own.values);
    } else {
      MMSW_UNROLL
      for (int i = 0; i < kSlots; ++i) {
        if (!(bits >> i & 1)) continue;
        add_patch<kSide, 1>(corner + i * kSide * pitch(), pitch(), grad, grad_pitch(),
                            own.values + i * kSide * kSide);
      }
    }
  }

  // Sums of the lanes, in their order; as many weights at a time as shared memory holds.
  MMSW_DEVICE void write() {
    const int taps = task.sizes.block_size(), row = team.threads() + 1;
    const int together = min_of(kSums, task.plan.shared_values / row);
    Acc* target = task.workspace + (static_cast<int64_t>(chunk) * task.map.channels + channel) *
                                       task.cross.blocks() * taps;
    MMSW_NO_UNROLL
    for (int from = 0; from < kSums; from += together) {
      const int count = min_of(together, kSums - from);
      team.each_thread([&](int thread) {
        MMSW_UNROLL
        for (int i = 0; i < kSums; ++i) {
          if (i >= from && i < from + count)
            shared[(i - from) * row + thread] = sums[thread].values[i];
        }
      });
      team.each_thread([&](int thread) {
        for (int i = thread; i < count * team.threads() / kWarp; i += team.threads()) {
          const int warp = i / count, weight = from + i % count;
          const int64_t index = index_of(warp, weight);
          if (index < 0) continue;
          const Acc* lanes = shared + i % count * row + warp * kWarp;
          Acc sum = Acc(0);
          for (int lane = 0; lane < kWarp; ++lane) sum += lanes[lane];
          target[index] = sum;
        }
      });
    }
  }

  // Where a weight of a warp goes, in the blocks of a channel; -1 for what nobody asks for.
  MMSW_DEVICE int64_t index_of(int warp, int weight) const {
    const int taps = task.sizes.block_size();
    if (!kStrips && kSide > 0 && warp == task.plan.warps) {
      return with_small && weight < taps ? task.cross.small().block0 * taps + weight : -1;
    }
    if (warp >= pieces) return -1;
    const int own = kSide > 0 ? (piece0 + warp) * kSums + weight : piece0 + warp;
    return own < own_arm.slots * taps ? own_arm.block0 * taps + own : -1;
  }
};

// Thread program: adds the chunks of one value of the workspace, in order, into the first chunk.
template <typename Acc>
MMSW_DEVICE void reduce_chunks(int64_t index, int64_t count, int chunks, Acc* workspace) {
  Acc sum = workspace[index];
  for (int chunk = 1; chunk < chunks; ++chunk) sum += workspace[chunk * count + index];
  workspace[index] = sum;
}

// Thread program: gradient of one weight of the small kernels from those of the blocks. `mask` is
// [C * nk] or nullptr; where it is off, the gradient is zero.
template <typename T>
MMSW_DEVICE T gather_grad(int64_t index, const Pattern& pattern, const bool* mask,
                          const typename Accumulator<T>::type* block_grads) {
  using Acc = typename Accumulator<T>::type;
  const PatternSizes& sizes = pattern.sizes;
  const int side = sizes.side, taps = sizes.block_size(), groups = sizes.groups;
  const int weight = static_cast<int>(index % taps);
  const int64_t kernel = index / taps, channel = kernel / groups;
  const int group = static_cast<int>(kernel % groups);
  if (mask != nullptr && !mask[kernel]) return Convert<T>::store(Acc(0));
  const Acc* blocks = block_grads + channel * (2 * groups + 1) * taps;
  const int transposed = weight % side * side + weight / side;
  Acc sum = Acc(0);
  for (int draw = 0; draw < 2 * sizes.reps; ++draw) {
    const int slot = pattern.slot_of(channel, group, draw), arm = draw / sizes.reps;
    if (!in_range(slot, groups)) continue;
    sum += blocks[(arm * groups + slot) * taps + (arm == 0 ? transposed : weight)];
  }
  for (int rep = 0; rep < sizes.reps; ++rep) {
    if (pattern.identity_group(channel, rep) == group) sum += blocks[2 * groups * taps + weight];
  }
  return Convert<T>::store(sum);
}

#ifdef __CUDACC__

// Per multiprocessor. Three leave 80 registers for a thread, with which ptxas spills from sm_100
// on.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kGradBlocks = 2;
#else
constexpr int kGradBlocks = 3;
#endif

template <typename T, int kSide, int kTile>
__global__ void __launch_bounds__(kMostWarps* kWarp, kGradBlocks)
    grad_weight_kernel(const __grid_constant__ GradTask<T> task) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* shared = reinterpret_cast<typename Accumulator<T>::type*>(shared_bytes);
  const int64_t all = task.plan.work(task.map.channels);
  for (int64_t work = blockIdx.x; work < all; work += gridDim.x) {
    const DeviceTeam team;
    GradPart<T, kSide, kTile, DeviceTeam>(team, task, work, shared).run();
  }
}

// For sides that are not compiled in, ptxas spills with 80 registers before sm_86.
template <typename T, int kSide, int kTile>
__global__ void __launch_bounds__(kMostWarps* kWarp, kSide > 0 ? kGradBlocks : 2)
    strips_grad_kernel(const __grid_constant__ StripsGradTask<T> task) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* shared = reinterpret_cast<typename Accumulator<T>::type*>(shared_bytes);
  const int64_t all = task.plan.work(task.map.channels);
  for (int64_t work = blockIdx.x; work < all; work += gridDim.x) {
    const DeviceTeam team;
    GradPart<T, kSide, kTile, DeviceTeam, true>(team, task, work, shared).run();
  }
}

template <typename Acc>
__global__ void __launch_bounds__(kElementThreads, 2)
    reduce_chunks_kernel(int64_t count, int chunks, Acc* workspace) {
  for_each(count, [&](int64_t i) { reduce_chunks(i, count, chunks, workspace); });
}

#endif

}  // namespace mmsw
