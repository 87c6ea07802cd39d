// Tiles of the maps, the bands of input that they need, and which slots of an arm matter to them.
//
// A tile is a square of outputs. A thread has a patch of it, kRows x kColumns outputs. Small maps
// have small tiles; then a warp works on the same tile of several images, so that all its lanes
// have a patch. A band is the input of a tile for some slots of an arm, held in shared memory;
// neighbouring rows of it are `pitch` values apart and the bands of two images `band_stride`, so
// that neither the pairs that a warp reads nor those of its other images meet in one bank.
#pragma once

#include "team.cuh"

namespace mmsw {

constexpr int kRows = 8;  // divides every tile side, as kColumns does
constexpr int kColumns = 2;
constexpr int kMaxTile = 32;
constexpr int kMostStaged = 32;  // slots that are held at a time: bits of a word
// Shared memory of a thread block stays below what every GPU grants without asking.
constexpr int kSharedBytes = 46 * 1024;

struct MapSizes {
  int batch, channels, height, width;

  MMSW_HOST_DEVICE int64_t planes() const { return static_cast<int64_t>(batch) * channels; }
  MMSW_HOST_DEVICE int64_t plane_size() const { return static_cast<int64_t>(height) * width; }
  MMSW_HOST_DEVICE bool empty() const { return planes() == 0 || plane_size() == 0; }
};

MMSW_HOST_DEVICE int patches_of(int tile) { return tile * tile / (kRows * kColumns); }

// At least `tile + side - 1`, two more than a multiple of four.
MMSW_HOST_DEVICE int band_pitch(int tile, int side) { return (tile + side) / 4 * 4 + 2; }
MMSW_HOST_DEVICE int band_rows(int tile, int taps) { return tile + taps - 1; }
// At least `rows * pitch`, eight more than a multiple of 32.
MMSW_HOST_DEVICE int band_stride(int rows, int pitch) { return (rows * pitch + 23) / 32 * 32 + 8; }
// Of the weights of one slot in memory; a multiple of four, so that they can be read in packs.
MMSW_HOST_DEVICE int block_pitch(int side) { return ceil_div(side * side, 4) * 4; }

struct TilePlan {
  int tile, tile_rows, tile_columns;
  int images;  // that share a thread block
  int image_groups;

  MMSW_HOST_DEVICE int64_t items() const {
    return static_cast<int64_t>(tile_rows) * tile_columns * image_groups;
  }
};

// The smallest of 8, 16, 32 that holds the map, 32 for larger maps.
inline TilePlan plan_tiles(const MapSizes& map) {
  TilePlan plan;
  plan.tile = kRows;
  while (plan.tile < kMaxTile && plan.tile < max_of(map.height, map.width)) plan.tile *= 2;
  plan.tile_rows = ceil_div(map.height, plan.tile);
  plan.tile_columns = ceil_div(map.width, plan.tile);
  plan.images = min_of(max_of(1, kWarp / patches_of(plan.tile)), max_of(1, map.batch));
  plan.image_groups = ceil_div(map.batch, plan.images);
  return plan;
}

// One tile of the images [image0, image0 + images).
struct Place {
  int image0, y0, x0;
};

MMSW_HOST_DEVICE Place place_of(const TilePlan& plan, int64_t item) {
  const int tiles = plan.tile_rows * plan.tile_columns;
  const int index = static_cast<int>(item % tiles);
  return {static_cast<int>(item / tiles) * plan.images, index / plan.tile_columns * plan.tile,
          index % plan.tile_columns * plan.tile};
}

// A plane as one arm sees it: rows run along the arm, columns across it.
struct ArmView {
  int rows, columns;
  int row_stride, column_stride;
  int row0, column0;  // corner of the tile
};

MMSW_HOST_DEVICE ArmView tall_view(const MapSizes& map, const Place& place) {
  return {map.height, map.width, map.width, 1, place.y0, place.x0};
}

MMSW_HOST_DEVICE ArmView wide_view(const MapSizes& map, const Place& place) {
  return {map.width, map.height, 1, map.width, place.x0, place.y0};
}

// Where a thread's patch lies: image, and row and column in the tile.
struct Patch {
  int image, row, column;
};

MMSW_HOST_DEVICE Patch patch_of(int index, int tile) {
  const int own = index % patches_of(tile), across = tile / kColumns;
  return {index / patches_of(tile), own / across * kRows, own % across * kColumns};
}

// A rectangle of a plane, in the view of an arm; what lies outside the plane is zero.
struct Rectangle {
  int row, column, rows, columns;
};

// Loads a rectangle into `band`. Lanes read neighbouring addresses, in powers of two of them, and
// every thread has kInFlight loads under way before it stores the first.
template <typename T, typename Acc>
MMSW_DEVICE void load_band(int thread, int threads, const T* plane, const ArmView& view,
                           const Rectangle& wanted, int pitch, Acc* band) {
  constexpr int kInFlight = 8;
  const bool along = view.row_stride == 1;  // addresses run along the arm
  const int count = along ? wanted.rows : wanted.columns;
  const int begin = along ? wanted.row : wanted.column;
  const int length = along ? view.rows : view.columns;
  const int lines = along ? wanted.columns : wanted.rows;
  const int first_line = along ? wanted.column : wanted.row;
  const int all_lines = along ? view.columns : view.rows;
  const int stride = along ? view.column_stride : view.row_stride;
  const int target_step = along ? pitch : 1, target_line = along ? 1 : pitch;
  int log = 5;
  MMSW_NO_UNROLL
  for (int done = 0; done < count; done += 1 << log) {
    while (1 << log > count - done || 1 << log > threads) --log;
    const int own = done + (thread & ((1 << log) - 1));
    const int step = threads >> log;
    const bool inside = in_range(begin + own, length);
    const T* source = plane + begin + own;
    Acc* target = band + own * target_step;
    MMSW_NO_UNROLL
    for (int line0 = thread >> log; line0 < lines; line0 += step * kInFlight) {
      Acc values[kInFlight];
      MMSW_UNROLL
      for (int i = 0; i < kInFlight; ++i) {
        const int line = line0 + i * step, from = first_line + line;
        const bool wanted_here = inside && line < lines && in_range(from, all_lines);
        values[i] = wanted_here ? Convert<T>::load(source[from * stride]) : Acc(0);
      }
      MMSW_UNROLL
      for (int i = 0; i < kInFlight; ++i) {
        const int line = line0 + i * step;
        if (line < lines) target[line * target_line] = values[i];
      }
    }
  }
}

// Slots [low, high) of an arm of which at least one tap of the tile can meet the map. `first` is
// that of slot 0, as in pattern.h.
struct SlotRange {
  int low, high;
};

MMSW_HOST_DEVICE SlotRange visible_slots(const ArmView& view, int tile, int first, int side,
                                         int slots) {
  const int last_row = min_of(view.row0 + tile, view.rows) - 1;
  // Slot i reads rows row0 + first + i * side ... last_row + first + i * side + side - 1.
  const int before = -(last_row + first + side - 1);
  const int last = view.rows - 1 - view.row0 - first;
  return {before > 0 ? ceil_div(before, side) : 0, last < 0 ? 0 : min_of(slots, last / side + 1)};
}

// Bits [begin, begin + 32) of a mask of `count` bits; nullptr stands for a mask of ones.
MMSW_HOST_DEVICE uint32_t mask_at(const uint32_t* words, int begin, int count) {
  if (begin >= count) return 0;
  uint32_t bits = ~uint32_t{0};
  if (words != nullptr) {
    const int word = begin / 32, shift = begin % 32;
    bits = words[word] >> shift;
    if (shift > 0 && (word + 1) * 32 < count) bits |= words[word + 1] << (32 - shift);
  }
  return bits & low_bits(count - begin);
}

}  // namespace mmsw
