// How the weight gradient (grad_weight.cuh) is divided among thread blocks and warps.
#pragma once

#include "strips.cuh"

namespace mmsw {

constexpr int kMostWarps = 8;  // of a thread block, that of the identity included

template <int kSide>
constexpr int kWarpSlots = kSide == 3 ? 3 : 1;

struct GradPlan {
  TilePlan tiles;
  int warp_slots;  // 0 where a warp owns one weight
  int warps;       // of a part that own something of the arm; 0 if not even one fits
  int parts;       // of an arm
  int arms;
  bool identity;
  int small_parts;  // of the identity, where it is an arm of its own
  int part_slots;   // the most that a part meets
  int stride;       // of the bands of two images
  int grad_stride;  // of their gradient tiles
  int chunks;
  int64_t chunk_items;
  int shared_values;

  MMSW_HOST_DEVICE int threads() const { return kWarp * (warps + (identity && warp_slots > 0)); }
  MMSW_HOST_DEVICE int all_parts() const { return arms * parts + small_parts; }
  MMSW_HOST_DEVICE int64_t work(int channels) const {
    return static_cast<int64_t>(all_parts()) * channels * chunks;
  }
};

// Pieces of an arm of `slots` slots, one per warp.
MMSW_HOST_DEVICE int pieces_of(const GradPlan& plan, const PatternSizes& sizes, int slots) {
  return plan.warp_slots > 0 ? ceil_div(slots, plan.warp_slots) : slots * sizes.block_size();
}

// Fills in what follows from the number of warps; returns whether shared memory holds it.
inline bool fits(GradPlan& plan, const PatternSizes& sizes, int value_bytes) {
  const int side = sizes.side, tile = plan.tiles.tile, taps = sizes.block_size();
  const int pieces = pieces_of(plan, sizes, sizes.groups);
  plan.parts = ceil_div(pieces, plan.warps);
  plan.warps = ceil_div(pieces, plan.parts);
  plan.small_parts = plan.identity && plan.warp_slots == 0 ? ceil_div(taps, plan.warps) : 0;
  // Pieces of single weights can begin in the middle of a slot.
  plan.part_slots = plan.warp_slots > 0 ? plan.warps * plan.warp_slots
                                        : min_of(sizes.groups, (plan.warps + taps - 2) / taps + 1);
  // An identity that shares a part may reach beyond its last slot, and has a gradient of its own.
  const bool shared_part = plan.identity && plan.warp_slots > 0;
  const int part_taps = plan.part_slots * side + (shared_part ? side - 1 : 0);
  plan.stride = band_stride(band_rows(tile, part_taps), band_pitch(tile, side));
  plan.grad_stride = band_stride(tile, band_pitch(tile, 1));
  const int64_t loaded =
      static_cast<int64_t>(plan.tiles.images) *
      (plan.stride + (shared_part ? 2 : 1) * static_cast<int64_t>(plan.grad_stride));
  plan.shared_values = max_of(static_cast<int>(loaded), plan.threads() + 1);
  return loaded * value_bytes <= kSharedBytes;
}

inline GradPlan plan_grad(const MapSizes& map, const PatternSizes& sizes, int warp_slots,
                          int value_bytes, int arms = 2, bool identity = true) {
  constexpr int64_t kWantedBlocks = 2048, kMostChunks = 256;
  GradPlan plan = {};
  plan.tiles = plan_tiles(map);
  plan.warp_slots = warp_slots;
  plan.arms = arms;
  plan.identity = identity;
  const int most = min_of(kMostWarps - identity, pieces_of(plan, sizes, sizes.groups));
  int& images = plan.tiles.images;
  const auto find = [&] {
    for (; images > 0; images /= 2) {
      for (int warps = most; warps > 0; --warps) {
        plan.warps = warps;
        if (fits(plan, sizes, value_bytes)) return true;
      }
    }
    return false;
  };
  if (!find()) {
    plan.warps = 0;
    return plan;
  }
  plan.tiles.image_groups = ceil_div(map.batch, images);
  const int64_t items = plan.tiles.items();
  const int64_t blocks = static_cast<int64_t>(max_of(map.channels, 1)) * plan.all_parts();
  int64_t chunks = (kWantedBlocks + blocks - 1) / blocks;
  chunks = chunks < kMostChunks ? chunks : kMostChunks;
  chunks = chunks < items ? chunks : items;
  chunks = chunks > 1 ? chunks : 1;
  plan.chunk_items = (items + chunks - 1) / chunks;
  plan.chunks =
      items == 0 ? 1 : static_cast<int>((items + plan.chunk_items - 1) / plan.chunk_items);
  return plan;
}

// Sizes of a strip as the plan reads them.
inline PatternSizes strip_sizes(const Strips& strips) {
  return {strips.length, strips.side, strips.along.slots, 0};
}

}  // namespace mmsw
