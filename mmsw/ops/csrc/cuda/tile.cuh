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
  const Split group = split(item, static_cast<int64_t>(plan.tile_rows) * plan.tile_columns);
  const auto index = static_cast<uint32_t>(group.rest);
  const auto columns = static_cast<uint32_t>(plan.tile_columns);
  return {static_cast<int>(group.quotient) * plan.images,
          static_cast<int>(index / columns) * plan.tile,
          static_cast<int>(index % columns) * plan.tile};
}

// The place after `place`, as `place_of` numbers them.
MMSW_HOST_DEVICE Place next_place(const TilePlan& plan, Place place) {
  place.x0 += plan.tile;
  if (place.x0 < plan.tile_columns * plan.tile) return place;
  place.x0 = 0;
  place.y0 += plan.tile;
  if (place.y0 < plan.tile_rows * plan.tile) return place;
  return {place.image0 + plan.images, 0, 0};
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

// Copies kInFlight values, or as many of them as `count` says, that lie `hop` apart to places that
// lie `target_hop` apart. All loads are under way before the first value is stored.
template <int kInFlight, bool kAll, typename T, typename Acc>
MMSW_DEVICE void load_some(const T*& source, int hop, Acc*& target, int target_hop, int count) {
  T values[kInFlight];
  MMSW_UNROLL
  for (int i = 0; i < kInFlight; ++i) {
    if (kAll || i < count) values[i] = *source;
    source += hop;
  }
  MMSW_UNROLL
  for (int i = 0; i < kInFlight; ++i) {
    if (kAll || i < count) *target = Convert<T>::load(values[i]);
    target += target_hop;
  }
}

template <typename T, typename Acc>
MMSW_DEVICE void load_lines(const T* source, int hop, Acc* target, int target_hop, int count) {
  MMSW_NO_UNROLL
  for (; count >= 8; count -= 8) load_some<8, true>(source, hop, target, target_hop, count);
  MMSW_NO_UNROLL
  for (; count > 0; count -= 4) load_some<4, false>(source, hop, target, target_hop, count);
}

// Loads a rectangle into `band`, by the first `1 << log_threads` threads. Lanes read neighbouring
// addresses, in powers of two of them; a thread walks over the lines of its position.
template <typename T, typename Acc>
MMSW_DEVICE void load_band(int thread, int log_threads, const T* plane, const ArmView& view,
                           const Rectangle& wanted, int pitch, Acc* band) {
  const bool along = view.row_stride == 1;  // addresses run along the arm
  const int count = along ? wanted.rows : wanted.columns;
  const int begin = along ? wanted.row : wanted.column;
  const int length = along ? view.rows : view.columns;
  const int lines = along ? wanted.columns : wanted.rows;
  const int first_line = along ? wanted.column : wanted.row;
  const int all_lines = along ? view.columns : view.rows;
  const int stride = along ? view.column_stride : view.row_stride;
  const int target_step = along ? pitch : 1, target_line = along ? 1 : pitch;
  if (thread >> log_threads != 0) return;
  int log = 5;
  MMSW_NO_UNROLL
  for (int done = 0; done < count; done += 1 << log) {
    while (1 << log > count - done || log > log_threads) --log;
    const int own = done + (thread & ((1 << log) - 1)), first = thread >> log;
    const int log_step = log_threads - log, step = 1 << log_step;
    // The first line of this thread from `line` on.
    const auto own_from = [&](int line) {
      return first + (max_of(0, line - first + step - 1) >> log_step << log_step);
    };
    // Lines [low, high) lie in the plane; the others are zero.
    const int low = in_range(begin + own, length) ? max_of(0, -first_line) : lines;
    const int high = min_of(lines, all_lines - first_line), start = own_from(low);
    Acc* target = band + own * target_step;
    MMSW_NO_UNROLL
    for (int i = first; i < min_of(low, lines); i += step) target[i * target_line] = Acc(0);
    load_lines(plane + begin + own + static_cast<int64_t>(first_line + start) * stride,
               stride << log_step, target + start * target_line, target_line << log_step,
               (high - start + step - 1) >> log_step);
    MMSW_NO_UNROLL
    for (int i = own_from(max_of(low, high)); i < lines; i += step) {
      target[i * target_line] = Acc(0);
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
