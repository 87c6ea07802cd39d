// How maps get into the phases of reduced_loops.h, and outputs out of them. Included by it.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace mmsw {
namespace {

constexpr int64_t kLanes = lanes<float>;
// Makes infinite what is not moderate. Weights up to 2^50 and maps up to about 2^60 are: no
// transform and no sum of theirs overflows.
constexpr float kMapScale = 0x1p68f;

// Sixteen (or eight) columns to four tiles of each phase, and back.
template <int Columns>
MMSW_INLINE void to_phases(Four (&v)[Columns]) {
  if constexpr (Columns == 4) {
    transpose_four(v);
  } else {
    const Four even = MMSW_SHUFFLE(v[0], v[1], 0, 2, 4, 6);
    v[1] = MMSW_SHUFFLE(v[0], v[1], 1, 3, 5, 7);
    v[0] = even;
  }
}

template <int Columns>
MMSW_INLINE void from_phases(Four (&v)[Columns]) {
  if constexpr (Columns == 4) {
    transpose_four(v);
  } else {
    const Four low = MMSW_SHUFFLE(v[0], v[1], 0, 4, 1, 5);
    v[1] = MMSW_SHUFFLE(v[0], v[1], 2, 6, 3, 7);
    v[0] = low;
  }
}

// Sums of what was seen, scaled: finite only if all of it was finite and moderate.
template <typename Vector>
MMSW_INLINE void watch(const Vector& value, Vector& seen) {
  seen += kMapScale * value;
}

template <typename Vector>
bool all_finite(const Vector& values) {
  bool finite = true;
  for (unsigned i = 0; i < sizeof(values) / 4; ++i) finite &= values[i] - values[i] == 0.0f;
  return finite;
}

template <int Columns>
bool take_upright(const ReducedPlan& plan, Plane<const float> map) {
  const int64_t before = plan.side / 2;
  const int64_t tiles = (map.width + before + Columns - 1) / Columns;
  Four seen[Columns] = {};
  for (int64_t y = 0; y < map.height; ++y) {
    const float* from = map.data + y * map.stride - before;
    float* to = plan.phases + y * Columns * plan.phase_stride;
    for (int64_t tile = 0; tile < tiles; tile += 4) {
      Four v[Columns];
#pragma GCC unroll 4
      for (int i = 0; i < Columns; ++i) {
        v[i] = load_four(from + tile * Columns + 4 * i);
        watch(v[i], seen[i]);
      }
      to_phases<Columns>(v);
#pragma GCC unroll 4
      for (int i = 0; i < Columns; ++i) store_four(to + i * plan.phase_stride + tile, v[i]);
    }
  }
  for (int i = 1; i < Columns; ++i) seen[0] += seen[i];
  return all_finite(seen[0]);
}

// The plane that the arm sees is the transpose of `map`, so a phase is made of every m-th row.
template <int Columns>
bool take_turned(const ReducedPlan& plan, Plane<const float> map) {
  const int64_t before = plan.side / 2, step = Columns * plan.phase_stride;
  const int64_t tiles = (map.height + before + Columns - 1) / Columns;
  Four seen[4] = {};
  for (int64_t tile = 0; tile < tiles; tile += 4) {
    for (int64_t phase = 0; phase < Columns; ++phase) {
      const float* rows[4];
      for (int64_t lane = 0; lane < 4; ++lane) {
        const int64_t y = (tile + lane) * Columns + phase - before;
        rows[lane] = map.data + (y >= 0 && y < map.height ? y : -1) * map.stride;
      }
      float* to = plan.phases + phase * plan.phase_stride + tile;
      for (int64_t x = 0; x < map.width; x += 4, to += 4 * step) {
        Four v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          v[i] = load_four(rows[i] + x);
          watch(v[i], seen[i]);
        }
        transpose_four(v);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) store_four(to + i * step, v[i]);
      }
    }
  }
  return all_finite((seen[0] + seen[1]) + (seen[2] + seen[3]));
}

// Stores what hangs over the right border of the map, too.
template <bool Accumulate>
MMSW_INLINE void put_four(Four value, Four init, int64_t room, float* to) {
  if (room >= 4) {
    store_four(to, value + (Accumulate ? load_four(to) : init));
  } else {
    for (int64_t i = 0; i < room; ++i) to[i] = value[i] + (Accumulate ? to[i] : init[i]);
  }
}

template <int Columns, bool Accumulate>
void gather_upright(const ReducedPlan& plan, int64_t tile, float init, float* out,
                    int64_t out_stride) {
  const Four start = Four{} + init;
  const int64_t left = tile * Columns, room = plan.width - left;
  for (int64_t y = 0; y < plan.height; ++y) {
    const float* from = plan.outputs + y * Columns * kLanes;
    float* to = out + y * out_stride + left;
    for (int64_t lane = 0; lane < kLanes; lane += 4) {
      Four v[Columns];
#pragma GCC unroll 4
      for (int i = 0; i < Columns; ++i) v[i] = load_four(from + i * kLanes + lane);
      from_phases<Columns>(v);
      const int64_t x = lane * Columns;
      if (x + 4 * Columns <= room) {
#pragma GCC unroll 4
        for (int i = 0; i < Columns; ++i) put_four<Accumulate>(v[i], start, 4, to + x + 4 * i);
      } else {
#pragma GCC unroll 4
        for (int i = 0; i < Columns; ++i) {
          put_four<Accumulate>(v[i], start, room - x - 4 * i, to + x + 4 * i);
        }
      }
    }
  }
}

template <int Columns, bool Accumulate>
void gather_turned(const ReducedPlan& plan, int64_t tile, float init, float* out,
                   int64_t out_stride) {
  const Four start = Four{} + init;
  for (int64_t lane = 0; lane < kLanes; lane += 4) {
    for (int64_t phase = 0; phase < Columns; ++phase) {
      const int64_t top = (tile + lane) * Columns + phase;
      const int64_t rows = (plan.width - top + Columns - 1) / Columns;
      const float* from = plan.outputs + phase * kLanes + lane;
      float* to = out + top * out_stride;
      const int64_t step = Columns * out_stride;
      for (int64_t x = 0; x < plan.height; x += 4, from += 4 * Columns * kLanes, to += 4) {
        Four v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) v[i] = load_four(from + i * Columns * kLanes);
        transpose_four(v);
        if (rows >= 4 && x + 4 <= plan.height) {
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) put_four<Accumulate>(v[i], start, 4, to + i * step);
        } else {
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            if (i < rows) put_four<Accumulate>(v[i], start, plan.height - x, to + i * step);
          }
        }
      }
    }
  }
}

bool take(const ReducedPlan& plan, Plane<const float> map, bool turned) {
  if (plan.columns == 4) return turned ? take_turned<4>(plan, map) : take_upright<4>(plan, map);
  return turned ? take_turned<2>(plan, map) : take_upright<2>(plan, map);
}

}  // namespace
}  // namespace mmsw
