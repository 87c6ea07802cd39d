// Fewer multiplications for an arm: two-dimensional Toom-Cook, in float32.
//
// Outputs come in tiles of 3 rows x m columns, map rows in tiles of 5 that begin 3 rows apart. The
// arm is cut into groups of 3 taps, so tile row Y of the outputs meets group g in tile row Y + g of
// the map, whatever Y and g are. A map is therefore transformed once for all groups: after that,
// 5 * (m + N - 1) numbers per tile stand for 3 * m * 3 * N multiplications, 30 for 108 at N = 3.
//
// It spreads NaN and infinity to whole tiles and overflows before the sums do, so such maps and
// such weights are refused, and run direct.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace mmsw {

constexpr int64_t kReducedSpare = kReducedRows + 2;    // rows before and after in `domain`
constexpr int32_t kModerateWeight = (127 + 50) << 23;  // the bits of 2^50; see kMapScale

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What planes of one size need, for any arm. The memory is taken at the first use.
class ReducedMemory {
 public:
  ReducedMemory(int64_t height, int64_t width, int64_t side)
      : height_(height), width_(width), side_(side) {}

  int64_t side() const { return side_; }
  int64_t row_vectors() const { return row_vectors_; }  // of a row of the plane
  bool can() const { return side_ == 3 || side_ == 5; }

  // All but the arm.
  const ReducedPlan& plan(int64_t lanes) {
    if (lanes != lanes_ || begin_ != memory_.data()) make_plan(lanes);  // new, or a copy
    return plan_;
  }

 private:
  void make_plan(int64_t lanes) {
    ReducedPlan& plan = plan_;
    plan.height = height_;
    plan.width = width_;
    plan.side = side_;
    plan.columns = side_ == 3 && width_ > 2 * lanes ? 4 : 2;
    plan.vectors = ceil_div(ceil_div(width_, plan.columns), lanes);
    row_vectors_ = ceil_div(width_, lanes);
    plan.grid_rows = ceil_div(height_ + 4, 3);
    plan.phase_stride = (plan.vectors + 1) * lanes;
    plan.domain_stride = (plan.grid_rows + 2 * kReducedSpare) * lanes;
    if (plan.domain_stride % 32 == 0) plan.domain_stride += 16;  // not to the same set of a cache
    const int64_t components = plan.components();
    const int64_t row = plan.columns * plan.phase_stride, above = 4, below = 6;
    const int64_t sizes[] = {(above + height_ + 3 + below) * row, components * plan.domain_stride,
                             components * kReducedRows * lanes,
                             (height_ + 2 + 4) * plan.columns * lanes};
    const int64_t line = 64 / sizeof(float);
    int64_t total = line;
    for (int64_t size : sizes) total += ceil_div(size, line) * line;
    memory_.assign(total, 0.0f);
    lanes_ = lanes;
    begin_ = memory_.data();
    float* at = memory_.data();
    at += (64 - reinterpret_cast<uintptr_t>(at) % 64) % 64 / sizeof(float);
    float* parts[4];
    for (int i = 0; i < 4; at += ceil_div(sizes[i++], line) * line) parts[i] = at;
    plan.phases = parts[0] + above * row;
    plan.domain = parts[1] + kReducedSpare * lanes;
    plan.sums = parts[2];
    plan.outputs = parts[3];
  }

  int64_t height_, width_, side_;
  ReducedPlan plan_{};
  int64_t lanes_ = 0, row_vectors_ = 0;
  const float* begin_ = nullptr;  // of the memory that `plan_` is for
  std::vector<float> memory_;
};

// An arm in the transformed domain.
class ReducedArm {
 public:
  // The blocks have changed.
  void forget() { known_ = false; }

  // Whether planes of the size of `memory` gain or, if it is `always` wanted, can be run at all.
  // The first question transforms the arm, a BlockList.
  template <typename Arm>
  bool wins(const ReducedKernels& kernels, const Arm& arm, ReducedMemory& memory, bool always) {
    if (!memory.can()) return false;
    if (!known_) {
      known_ = true;
      wins_ = false;
      const ReducedPlan& plan = memory.plan(kernels.lanes);
      const int64_t most_taps = (arm.size() + 2) * plan.side;
      if (!always && !is_less(memory, plan, most_taps * plan.height)) return false;  // it is small
      pieces_.clear();
      for (int64_t i = 0; i < arm.size(); ++i) {
        pieces_.push_back({arm.data()[i].offset, memory.side(), arm.data()[i].weight});
      }
      for (const auto& end : arm.ends()) {
        pieces_.push_back({end.block.offset, end.taps, end.block.weight});
      }
      wins_ = !pieces_.empty() && prepare(kernels, memory, always);
    }
    return wins_;
  }

  // False: `map` is not finite and moderate, and nothing was done.
  bool run(const ReducedKernels& kernels, Plane<const float> map, bool turned, float init,
           bool accumulate, float* out, int64_t out_stride, ReducedMemory& memory) {
    ReducedPlan plan = memory.plan(kernels.lanes);
    plan.first_row = first_row_;
    plan.weights = weights_.data();
    plan.weight_stride = weight_stride_;
    plan.tiles = tiles_.data();
    plan.tile_count = static_cast<int64_t>(tiles_.size());
    plan.runs = runs_.data();
    if (!kernels.take(plan, map, turned)) return false;
    kernels.correlate(plan, turned, init, accumulate, out, out_stride);
    return true;
  }

 private:
  // Neighbouring taps.
  struct Piece {
    int64_t offset, taps;
    const float* weight;
  };

  // False: the arm does not win, or not all weights are finite and moderate.
  bool prepare(const ReducedKernels& kernels, ReducedMemory& memory, bool always) {
    ReducedPlan plan = memory.plan(kernels.lanes);
    if (!always && !is_less(memory, plan, rows_met(plan.height))) return false;
    const bool moderate = plan.side == 3 ? cut<3>(kernels.lanes) : cut<5>(kernels.lanes);
    if (!moderate) return false;
    first_row_ = ((base_ + 4) % 3 + 3) % 3 - 4;  // above are only tiles that miss the map
    list_runs(plan);
    weights_.resize(plan.components() * weight_stride_);
    plan.weights = weights_.data();
    plan.weight_stride = weight_stride_;
    kernels.transform_weights(plan, taps_.data());
    return true;
  }

  // Sorts the taps into groups of three. False: not all weights are finite and moderate.
  template <int Side>
  bool cut(int64_t lanes) {
    int64_t first = pieces_[0].offset, last = first;
    bool on_grid = true;
    for (const Piece& piece : pieces_) {
      on_grid &= piece.taps == 3 && (piece.offset - pieces_[0].offset) % 3 == 0;
      first = std::min(first, piece.offset);
      last = std::max(last, piece.offset + piece.taps);
    }
    base_ = on_grid ? first : first - taps_before<Side>(first, last);
    groups_ = ceil_div(last - base_, 3);
    const int64_t stride = weight_stride_ = ceil_div(groups_, lanes) * lanes;
    taps_.assign(3 * Side * stride, 0.0f);
    kept_.assign(groups_, 0);
    int32_t largest = 0;
    for (const Piece& piece : pieces_) {
      const float* weight = piece.weight;
      const uint32_t begin = static_cast<uint32_t>(piece.offset - base_);
      for (uint32_t at = begin; at < begin + piece.taps; ++at, weight += Side) {
        const int32_t size = magnitude<Side>(weight);
        largest = std::max(largest, size);
        kept_[at / 3] |= size != 0;
        float* to = taps_.data() + at % 3 * Side * stride + at / 3;
        for (int64_t n = 0; n < Side; ++n) to[n * stride] = weight[n];
      }
    }
    return largest <= kModerateWeight;
  }

  // The bits of the largest weight of a tap; NaN is above all.
  template <int Side>
  static int32_t magnitude(const float* weight) {
    int32_t bits[Side], largest = 0;
    std::memcpy(bits, weight, sizeof(bits));
    for (int32_t i : bits) largest = std::max(largest, i & INT32_MAX);
    return largest;
  }

  // How many taps before `first` the groups must begin, so that the fewest of them are in use.
  template <int Side>
  int64_t taps_before(int64_t first, int64_t last) const {
    std::vector<char> used(last - first + 4);  // from two taps before `first`
    for (const Piece& piece : pieces_) {
      for (int64_t tap = 0; tap < piece.taps; ++tap) {
        used[piece.offset - first + tap + 2] = magnitude<Side>(piece.weight + tap * Side) != 0;
      }
    }
    int64_t fewest = last - first + 1, best = 0;
    for (int64_t before = 0; before < 3; ++before) {
      int64_t groups = 0;
      for (size_t at = 2 - before; at + 2 < used.size(); at += 3) {
        groups += used[at] | used[at + 1] | used[at + 2];
      }
      if (groups < fewest) fewest = groups, best = before;
    }
    return best;
  }

  // For every tile of rows: the kept groups that meet the map there, as runs of up to three.
  void list_runs(const ReducedPlan& plan) {
    const int64_t tile_rows = ceil_div(plan.height, 3);
    const int64_t count = ceil_div(tile_rows, kReducedRows);
    const int64_t ahead = (base_ - first_row_) / 3;  // of group 0; exact
    tiles_.resize(count);
    runs_.clear();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = i * tile_rows / count, rows = (i + 1) * tile_rows / count - from;
      const int64_t row = from + ahead;  // that group 0 meets
      const int64_t begin = std::max<int64_t>(0, 1 - rows - row);
      const int64_t end = std::min(groups_, plan.grid_rows - row);
      for (auto& list : lists_) list.clear();
      for (int64_t group = begin; group < end;) {
        int64_t length = 0;
        while (length < 3 && group + length < end && kept_[group + length]) ++length;
        if (length > 0) {
          lists_[length - 1].push_back(
              {static_cast<int32_t>(group), static_cast<int32_t>(row + group)});
        }
        group += std::max<int64_t>(length, 1);
      }
      int32_t starts[4];
      for (int length = 3; length > 0; --length) {
        starts[3 - length] = static_cast<int32_t>(runs_.size());
        runs_.insert(runs_.end(), lists_[length - 1].begin(), lists_[length - 1].end());
      }
      starts[3] = static_cast<int32_t>(runs_.size());
      tiles_[i] = {static_cast<int32_t>(from),
                   static_cast<int32_t>(rows),
                   starts[0],
                   starts[1],
                   starts[2],
                   starts[3]};
    }
  }

  // How many rows of the map the taps meet, all together.
  int64_t rows_met(int64_t height) const {
    int64_t rows = 0;
    for (const Piece& piece : pieces_) {
      rows += std::max<int64_t>(0, height - std::abs(piece.offset)) * piece.taps;
    }
    return rows;
  }

  // Whether the reduced form takes less work, counted in multiply-adds of vectors: both take as
  // many as their sums have; the transforms of a map cost about as much as 11 groups, those of an
  // arm 1500.
  static bool is_less(const ReducedMemory& memory, const ReducedPlan& plan, int64_t rows) {
    const int64_t direct = rows * plan.side * memory.row_vectors();
    const int64_t transforms = 11 * ((plan.height + 2) / 3);
    return plan.vectors * plan.components() * (rows / 9 + transforms) + 1500 < direct;
  }

  bool known_ = false, wins_ = false;
  int64_t base_ = 0, first_row_ = 0, groups_ = 0, weight_stride_ = 0;
  std::vector<Piece> pieces_;
  std::vector<float> taps_, weights_;
  std::vector<char> kept_;
  std::vector<RowTile> tiles_;
  std::vector<GroupRun> runs_, lists_[3];
};

}  // namespace mmsw
