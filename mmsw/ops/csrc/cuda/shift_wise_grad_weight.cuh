// The weight gradient of the fused operator; arms, slots and units are those of shift_wise.cuh.
#pragma once

#include "shift_wise.cuh"

namespace mmsw {

// How the weight gradient is split. A warp owns one "piece" of an arm and keeps its sums in
// registers: a whole slot with kSide > 0, else a single tap. The maps are cut into chunks of tiles;
// the sums of a chunk go to a workspace [chunks][C][units][taps], and a second kernel adds the chunks
// in their order. The split depends on sizes only, so results repeat bit for bit on every GPU.
struct GradPlan {
  int tile, tile_rows, tile_columns;
  int64_t items;  // tiles of all images of the batch
  int64_t items_per_chunk;
  int chunks;
  int pieces_per_slot;
  int pieces;        // of one arm
  int block_pieces;  // pieces that one block owns, one per warp
  int arm_blocks;    // blocks of one arm
  int small_blocks;  // blocks of the identity kernel
  int shared_values;

  MMSW_HOST_DEVICE int parts() const { return 2 * arm_blocks + small_blocks; }
  MMSW_HOST_DEVICE int threads() const { return kWarp * block_pieces; }
};

inline int grad_band_slots(int pieces, int pieces_per_slot) {
  // Consecutive pieces can begin in the middle of a slot.
  return pieces_per_slot == 1 ? pieces : (pieces + pieces_per_slot - 2) / pieces_per_slot + 1;
}

inline int64_t grad_shared_values(const ConvSizes& sizes, int tile, int pieces, int per_slot) {
  const int64_t band = static_cast<int64_t>(band_rows(
                           tile, sizes.side, min_of(grad_band_slots(pieces, per_slot),
                                                    max_of(sizes.groups, 1)))) *
                       band_pitch(tile, sizes.side);
  const int64_t loaded = band + tile * (tile + 1);
  const int64_t summed = static_cast<int64_t>(kWarp) * pieces;
  return loaded > summed ? loaded : summed;
}

// `block_pieces` is 0 when not even one piece fits (a small kernel of more than about 40 pixels).
inline GradPlan plan_grad(const ConvSizes& sizes, bool whole_slots, int value_bytes) {
  constexpr int kMostWarps = 20;
  constexpr int64_t kWantedBlocks = 2048;
  constexpr int64_t kMostChunks = 256;
  GradPlan plan;
  plan.tile = tile_side(sizes.height, sizes.width);
  plan.tile_rows = ceil_div(sizes.height, plan.tile);
  plan.tile_columns = ceil_div(sizes.width, plan.tile);
  plan.pieces_per_slot = whole_slots ? 1 : sizes.taps();
  plan.pieces = sizes.groups * plan.pieces_per_slot;
  int most = min_of(kMostWarps, plan.pieces);
  while (most > 0 && grad_shared_values(sizes, plan.tile, most, plan.pieces_per_slot) *
                             value_bytes >
                         kSharedBytes) {
    --most;
  }
  plan.block_pieces = most == 0 ? 0 : ceil_div(plan.pieces, ceil_div(plan.pieces, most));
  plan.arm_blocks = most == 0 ? 0 : ceil_div(plan.pieces, plan.block_pieces);
  // The identity kernel has one slot; alone in its block it is shared by all warps.
  plan.small_blocks = whole_slots || most == 0 ? 1 : ceil_div(sizes.taps(), plan.block_pieces);
  plan.shared_values = static_cast<int>(
      most == 0 ? 0
                : grad_shared_values(sizes, plan.tile, plan.block_pieces, plan.pieces_per_slot));
  plan.items = static_cast<int64_t>(sizes.batch) * plan.tile_rows * plan.tile_columns;
  const int64_t blocks = static_cast<int64_t>(sizes.channels) * max_of(plan.parts(), 1);
  int64_t chunks = (kWantedBlocks + blocks - 1) / blocks;
  chunks = chunks < kMostChunks ? chunks : kMostChunks;
  chunks = chunks < plan.items ? chunks : plan.items;
  chunks = chunks > 1 ? chunks : 1;
  plan.items_per_chunk = (plan.items + chunks - 1) / chunks;
  plan.chunks = plan.items_per_chunk == 0
                    ? 1
                    : static_cast<int>((plan.items + plan.items_per_chunk - 1) /
                                       plan.items_per_chunk);
  return plan;
}

template <typename Acc, int kSide>
struct PieceSums {
  Acc values[kSide > 0 ? kSide * kSide : 1];
};

// Adds kOutputs rows of one column to the sums of a piece; `corner` as in `add_slot`.
template <typename Acc, int kSide>
MMSW_DEVICE void add_rows(
    const Acc* corner, int pitch, const Acc* grad, int grad_pitch, int side, int tap,
    PieceSums<Acc, kSide>& sums) {
  if constexpr (kSide > 0) {
    Acc factor[kOutputs];
    MMSW_UNROLL
    for (int k = 0; k < kOutputs; ++k) factor[k] = grad[k * grad_pitch];
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
        for (int s = 0; s < kSide; ++s) sums.values[t * kSide + s] += factor[k] * input[s];
      }
    }
  } else {
    const int t = tap / side, s = tap % side;
    MMSW_UNROLL
    for (int k = 0; k < kOutputs; ++k) {
      sums.values[0] += grad[k * grad_pitch] * corner[(k + t) * pitch + s];
    }
  }
}

// Block program: sums of one part of the units of one channel over one chunk of tiles.
template <typename T, int kSide, typename Block>
MMSW_DEVICE void grad_weight_chunk(
    const Block& block, int part, int channel, int chunk, const ConvSizes& sizes,
    const GradPlan& plan, const T* grad_h, const T* grad_v, const T* grad_i, const T* x,
    typename Accumulator<T>::type* workspace, typename Accumulator<T>::type* shared) {
  using Acc = typename Accumulator<T>::type;
  const int side = kSide > 0 ? kSide : sizes.side;
  const int taps = side * side;
  const int tile = plan.tile;
  const int pitch = band_pitch(tile, side);
  const int grad_pitch = tile + 1;
  const int per_slot = plan.pieces_per_slot;

  const int arm = part < plan.arm_blocks ? 0 : part < 2 * plan.arm_blocks ? 1 : 2;
  const int first_piece = (part - arm * plan.arm_blocks) * plan.block_pieces;
  const int pieces = arm == 2 ? per_slot : plan.pieces;
  const int own_pieces = min_of(plan.block_pieces, pieces - first_piece);
  const int first_slot = first_piece / per_slot;
  const int own_slots = (first_piece + own_pieces - 1) / per_slot + 1 - first_slot;
  // Warps that share a piece; more than one only where whole slots leave warps over.
  const int split = plan.block_pieces / own_pieces;
  const T* grad = arm == 0 ? grad_h : arm == 1 ? grad_v : grad_i;
  const int first = (arm == 2 ? side / 2 : first_offset(sizes, false)) - first_slot * side;

  const int rows = band_rows(tile, side, own_slots);
  Acc* band = shared;
  Acc* grad_tile = band + rows * pitch;
  typename Block::template PerThread<PieceSums<Acc, kSide>> sums(block);
  constexpr int kSums = kSide > 0 ? kSide * kSide : 1;
  block.each_thread([&](int thread) {
    MMSW_UNROLL
    for (int i = 0; i < kSums; ++i) sums[thread].values[i] = Acc(0);
  });

  const int64_t begin = chunk * plan.items_per_chunk;
  const int64_t end =
      begin + plan.items_per_chunk < plan.items ? begin + plan.items_per_chunk : plan.items;
  const int tiles = plan.tile_rows * plan.tile_columns;
  for (int64_t item = begin; item < end; ++item) {
    const int tile_index = static_cast<int>(item % tiles);
    const int y0 = tile_index / plan.tile_columns * tile;
    const int x0 = tile_index % plan.tile_columns * tile;
    const int64_t offset = (item / tiles * sizes.channels + channel) * sizes.plane_size();
    const ArmView view = arm == 0 ? wide_view(sizes, y0, x0) : tall_view(sizes, y0, x0);
    const SlotRange visible = visible_slots(view, tile, first, side, own_slots);
    if (visible.low >= visible.high) continue;

    block.each_thread([&](int thread) {
      const int low = visible.low * side;
      load_band(
          thread, block.threads(), x + offset, view, view.row0 - first + low,
          band_rows(tile, side, visible.high - visible.low), tile + side - 1, side / 2, pitch,
          band + low * pitch);
      load_band(
          thread, block.threads(), grad + offset, view, view.row0, tile, tile, 0, grad_pitch,
          grad_tile);
    });
    block.each_thread([&](int thread) {
      const int warp = thread / kWarp, lane = thread % kWarp;
      const int own = warp / split;
      if (own >= own_pieces) return;
      const int piece = first_piece + own;
      const int slot = piece / per_slot - first_slot;
      if (slot < visible.low || slot >= visible.high) return;
      for (int i = warp % split * kWarp + lane; i < tile * tile / kOutputs; i += kWarp * split) {
        const int column = i % tile, row = i / tile * kOutputs;
        add_rows<Acc, kSide>(
            band + (slot * side + row) * pitch + column, pitch,
            grad_tile + row * grad_pitch + column, grad_pitch, side, piece % per_slot,
            sums[thread]);
      }
    });
  }

  // Sums of the lanes, in their order; as many taps at a time as shared memory holds.
  Acc* target = workspace +
                ((static_cast<int64_t>(chunk) * sizes.channels + channel) * sizes.units() +
                 arm * sizes.groups) *
                    taps;
  const int together = min_of(kSums, plan.shared_values / block.threads());
  for (int tap0 = 0; tap0 < kSums; tap0 += together) {
    block.each_thread([&](int thread) {
      MMSW_UNROLL
      for (int i = 0; i < kSums; ++i) {
        if (i >= tap0 && i < tap0 + together) {
          shared[(i - tap0) * block.threads() + thread] = sums[thread].values[i];
        }
      }
    });
    const int count = min_of(together, kSums - tap0);
    block.each_thread([&](int thread) {
      for (int i = thread; i < own_pieces * count; i += block.threads()) {
        const int own = i / count, tap = i % count;
        const int lanes = kWarp * split;
        const Acc* partial = shared + tap * block.threads() + own * lanes;
        Acc sum = Acc(0);
        for (int lane = 0; lane < lanes; ++lane) sum += partial[lane];
        target[static_cast<int64_t>(first_piece + own) * kSums + tap0 + tap] = sum;
      }
    });
  }
}

// Thread program: adds the chunks of one value of the workspace, in order, into the first chunk.
template <typename Acc>
MMSW_DEVICE void reduce_chunks(int64_t index, int64_t count, int chunks, Acc* workspace) {
  Acc sum = workspace[index];
  for (int chunk = 1; chunk < chunks; ++chunk) sum += workspace[chunk * count + index];
  workspace[index] = sum;
}

// Thread program: gradient of one value of the small kernels from those of the units.
template <typename T>
MMSW_DEVICE void gather_grad(
    int64_t index, const ConvSizes& sizes, const int* shift_hv, const int64_t* identity_index,
    const typename Accumulator<T>::type* unit_grads, T* grad_weight) {
  using Acc = typename Accumulator<T>::type;
  const int side = sizes.side, taps = sizes.taps(), groups = sizes.groups, reps = sizes.reps;
  const int tap = static_cast<int>(index % taps);
  const int64_t kernel = index / taps;
  const int64_t channel = kernel / groups;
  const Acc* units = unit_grads + channel * sizes.units() * taps;
  const int transposed = tap % side * side + tap / side;
  Acc sum = Acc(0);
  for (int draw = 0; draw < 2 * reps; ++draw) {
    const int slot = slot_of_shift(sizes, shift_hv[kernel * 2 * reps + draw]);
    const int arm = draw / reps;
    if (slot >= 0 && slot < groups) {
      sum += units[(arm * groups + slot) * taps + (arm == 0 ? transposed : tap)];
    }
  }
  for (int rep = 0; rep < reps; ++rep) {
    if (identity_index[channel * reps + rep] % groups == kernel % groups) {
      sum += units[2 * groups * taps + tap];
    }
  }
  grad_weight[index] = Convert<T>::store(sum);
}

}  // namespace mmsw
