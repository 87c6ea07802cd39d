// The loops of reduced.h. Included by plane_loops.h.
//
// Picture, for N = 3 and tiles of 3 x 4 outputs:
//
//   map rows    columns of a tile, by phase    across, 6 points     along, 5 points
//   3 j + 0     d0 d1 d2 d3 d4 d5         ->   e0 e1 e2 e3 e4 e5
//   ...         (the same)                     (the same)       ->  domain[0 .. 29][j]
//   3 j + 4     (the same)                     (the same)
//
//   sums[k][Y] = sum over groups g of weights[k][g] * domain[k][Y + g]    for each of the 30 k
//   rows 3 Y to 3 Y + 2 of four columns = the way back from sums[0 .. 29][Y]
//
// Points across are 0, +-5/8, +-3/2 and infinity, or 0, +-1 and infinity where 4 are enough; along
// they are 0, 1, -1, 2 and infinity. They were chosen for small errors: about 3 times those of the
// direct form; +-1 and +-2 across would double that.
#pragma once

#include "kernels.h"
#include "reduced_copies.h"
#include "simd.h"

namespace mmsw {
namespace {

constexpr float kNear = 0.625f, kFar = 1.5f;  // points across: 0, +-kNear, +-kFar and infinity

// One of the parts that the points across fall into: 0; two of opposite signs; infinity.
template <int Points, int Part>
MMSW_INLINE void across(const Floats (&d)[Points], Floats (&e)[2]) {
  constexpr float near = kNear * kNear, far = kFar * kFar;
  if constexpr (Points == 4) {
    if (Part == 0) e[0] = d[2] - d[0];
    if (Part == 1) e[0] = d[2] + d[1], e[1] = d[2] - d[1];
    if (Part == 2) e[0] = d[3] - d[1];
  } else {
    if (Part == 0) e[0] = (d[4] - far * d[2]) - near * (d[2] - far * d[0]);
    if (Part == 1 || Part == 2) {
      constexpr float point = Part == 1 ? kNear : kFar, other = Part == 1 ? far : near;
      const Floats even = d[4] - other * d[2], odd = d[3] - other * d[1];
      e[0] = even + point * odd;
      e[1] = even - point * odd;
    }
    if (Part == 3) e[0] = (d[5] - far * d[3]) - near * (d[3] - far * d[1]);
  }
}

template <int Columns, int Points, int Part>
MMSW_INLINE void across_row(const float* row, int64_t phase_stride, Floats (&e)[2]) {
  Floats d[Points];
#pragma GCC unroll 8
  for (int i = 0; i < Points; ++i) {
    d[i] = load(row + i % Columns * phase_stride + i / Columns);  // what is not used is not loaded
  }
  across<Points, Part>(d, e);
}

template <int Columns, int Points, int Part>
void transform_part(const ReducedPlan& plan, int64_t tile) {
  constexpr bool pair = Part > 0 && Part < Points / 2;
  constexpr int first = Part == 0 ? 0 : 2 * Part - 1;
  const int64_t step = Columns * plan.phase_stride, component = plan.domain_stride;
  const float* row = plan.phases + tile + plan.first_row * step;
  float* to = plan.domain + first * 5 * component;
  Floats e[5][2];
  across_row<Columns, Points, Part>(row, plan.phase_stride, e[0]);
  across_row<Columns, Points, Part>(row + step, plan.phase_stride, e[1]);
  for (int64_t j = 0; j < plan.grid_rows; ++j, to += kLanes) {
    row += 2 * step;
    across_row<Columns, Points, Part>(row, plan.phase_stride, e[2]);
    across_row<Columns, Points, Part>(row + step, plan.phase_stride, e[3]);
    across_row<Columns, Points, Part>(row + 2 * step, plan.phase_stride, e[4]);
    row += step;
#pragma GCC unroll 2
    for (int i = 0; i < (pair ? 2 : 1); ++i) {
      float* at = to + i * 5 * component;
      const Floats two = e[3][i] - e[1][i];
      store(at, two - 2.0f * (e[2][i] - e[0][i]));
      store(at + component, two - (e[2][i] + e[1][i]));
      store(at + 2 * component, two - 3.0f * (e[2][i] - e[1][i]));
      store(at + 3 * component, two);
      store(at + 4 * component, (e[4][i] - e[2][i]) - 2.0f * two);
      e[0][i] = e[3][i];
      e[1][i] = e[4][i];
    }
  }
}

template <int Columns, int Points>
void transform(const ReducedPlan& plan, int64_t tile) {
  transform_part<Columns, Points, 0>(plan, tile);
  transform_part<Columns, Points, 1>(plan, tile);
  transform_part<Columns, Points, 2>(plan, tile);
  if constexpr (Points == 6) transform_part<Columns, Points, 3>(plan, tile);
}

// Adds `Groups` neighbouring groups to `Rows` tile rows of one component.
template <int Rows, int Groups>
MMSW_INLINE void add_groups(const float* domain, const float* weight, Floats (&sum)[Rows]) {
  Floats w[Groups];
#pragma GCC unroll 4
  for (int group = 0; group < Groups; ++group) w[group] = splat(weight[group]);
#pragma GCC unroll 32
  for (int line = 0; line < Rows + Groups - 1; ++line) {
    Floats value = load(domain + line * kLanes);
    if (Groups > 1) MMSW_KEEP(value);
#pragma GCC unroll 4
    for (int group = 0; group < Groups; ++group) {
      const int row = line - group;
      if (row >= 0 && row < Rows) sum[row] += w[group] * value;
    }
  }
}

template <int Rows>
void multiply(const ReducedPlan& plan, const RowTile& tile, int64_t components) {
  const float* domain = plan.domain;
  const float* weights = plan.weights;
  float* to = plan.sums;
  const GroupRun* const twos = plan.runs + tile.twos;
  const GroupRun* const ones = plan.runs + tile.ones;
  const GroupRun* const end = plan.runs + tile.end;
  for (int64_t k = 0; k < components; ++k) {
    Floats sum[Rows];
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) sum[row] = Floats{};
    const GroupRun* run = plan.runs + tile.threes;
    for (; run < twos; ++run)
      add_groups<Rows, 3>(domain + run->row * kLanes, weights + run->group, sum);
    for (; run < ones; ++run)
      add_groups<Rows, 2>(domain + run->row * kLanes, weights + run->group, sum);
    for (; run < end; ++run)
      add_groups<Rows, 1>(domain + run->row * kLanes, weights + run->group, sum);
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) store(to + row * kLanes, sum[row]);
    domain += plan.domain_stride;
    weights += plan.weight_stride;
    to += kReducedRows * kLanes;
  }
}

void multiply_rows(const ReducedPlan& plan, const RowTile& tile, int64_t components) {
  switch (tile.count) {
    case 1:
      return multiply<1>(plan, tile, components);
    case 2:
      return multiply<2>(plan, tile, components);
    case 3:
      return multiply<3>(plan, tile, components);
    case 4:
      return multiply<4>(plan, tile, components);
    case 5:
      return multiply<5>(plan, tile, components);
    case 6:
      return multiply<6>(plan, tile, components);
    case 7:
      return multiply<7>(plan, tile, components);
    default:
      return multiply<8>(plan, tile, components);
  }
}

MMSW_INLINE void along_back(const Floats (&a)[5], Floats (&out)[3]) {
  const Floats sum = a[1] + a[2];
  out[0] = a[0] + sum + a[3];
  out[1] = (a[1] - a[2]) + 2.0f * a[3];
  out[2] = (sum + a[4]) + 4.0f * a[3];
}

MMSW_INLINE void single_back(const float* sums, Floats (&out)[3]) {
  Floats a[5];
#pragma GCC unroll 5
  for (int i = 0; i < 5; ++i) a[i] = load(sums + i * kReducedRows * kLanes);
  along_back(a, out);
}

// Of the sum (Sign 1) or the difference (Sign -1) of the components of two opposite points.
template <int Sign>
MMSW_INLINE void pair_back(const float* sums, Floats (&out)[3]) {
  Floats a[5];
#pragma GCC unroll 5
  for (int i = 0; i < 5; ++i) {
    const Floats plus = load(sums + i * kReducedRows * kLanes),
                 minus = load(sums + (i + 5) * kReducedRows * kLanes);
    a[i] = Sign > 0 ? plus + minus : plus - minus;
  }
  along_back(a, out);
}

// From the sums of one tile row to its three rows of outputs, phase by phase.
template <int Columns, int Points>
void transform_back(const float* sums, float* out) {
  constexpr int part = 5 * kReducedRows * kLanes;
  constexpr int row = Columns * kLanes;
  constexpr float near = kNear * kNear, far = kFar * kFar;
  Floats end[3], low[3], high[3];
  single_back(sums, end);
  pair_back<1>(sums + part, low);
  if constexpr (Points == 6) pair_back<1>(sums + 3 * part, high);
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    if constexpr (Points == 4) {
      store(out + i * row, end[i] + low[i]);
    } else {
      store(out + i * row, end[i] + (low[i] + high[i]));
      if (Columns == 4) store(out + i * row + 2 * kLanes, near * low[i] + far * high[i]);
    }
  }
  single_back(sums + (Points - 1) * part, end);
  pair_back<-1>(sums + part, low);
  if constexpr (Points == 6) pair_back<-1>(sums + 3 * part, high);
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    if constexpr (Points == 4) {
      store(out + i * row + kLanes, low[i] + end[i]);
    } else if constexpr (Columns == 2) {
      store(out + i * row + kLanes, kNear * low[i] + (kFar * high[i] + end[i]));
    } else {
      store(out + i * row + kLanes, kNear * low[i] + kFar * high[i]);
      store(out + i * row + 3 * kLanes,
            (near * kNear) * low[i] + ((far * kFar) * high[i] + end[i]));
    }
  }
}

template <int Columns, int Points>
void run_reduced(const ReducedPlan& plan, bool turned, float init, bool accumulate, float* out,
                 int64_t out_stride) {
  for (int64_t tile = 0; tile * Columns < plan.width; tile += kLanes) {
    transform<Columns, Points>(plan, tile);
    for (int64_t i = 0; i < plan.tile_count; ++i) {
      const RowTile& rows = plan.tiles[i];
      multiply_rows(plan, rows, 5 * Points);
      for (int64_t row = 0; row < rows.count; ++row) {
        transform_back<Columns, Points>(plan.sums + row * kLanes,
                                        plan.outputs + (rows.first + row) * 3 * Columns * kLanes);
      }
    }
    const auto gather =
        turned ? (accumulate ? gather_turned<Columns, true> : gather_turned<Columns, false>)
               : (accumulate ? gather_upright<Columns, true> : gather_upright<Columns, false>);
    gather(plan, tile, init, out, out_stride);
  }
}

void correlate_reduced(const ReducedPlan& plan, bool turned, float init, bool accumulate,
                       float* out, int64_t out_stride) {
  if (plan.side == 5) return run_reduced<2, 6>(plan, turned, init, accumulate, out, out_stride);
  if (plan.columns == 4) return run_reduced<4, 6>(plan, turned, init, accumulate, out, out_stride);
  return run_reduced<2, 4>(plan, turned, init, accumulate, out, out_stride);
}

// G of Toom-Cook, [points][taps], for the finite `points` and infinity.
template <int Points, int Taps>
struct WeightMatrix {
  float at[Points][Taps] = {};

  constexpr explicit WeightMatrix(const double (&points)[Points - 1]) {
    for (int i = 0; i < Points - 1; ++i) {
      double power = 1;
      for (int j = 0; j < Points - 1; ++j) power /= i == j ? 1 : points[i] - points[j];
      for (int tap = 0; tap < Taps; ++tap, power *= points[i])
        at[i][tap] = static_cast<float>(power);
    }
    at[Points - 1][Taps - 1] = 1;
  }
};

// A lane holds a group.
template <int Side, int Points>
void transform_weights_of(const ReducedPlan& plan, const float* taps,
                          const WeightMatrix<Points, Side>& across) {
  static constexpr WeightMatrix<5, 3> along({0, 1, -1, 2});
  const int64_t stride = plan.weight_stride;
  for (int64_t group = 0; group < stride; group += kLanes) {
    Floats half[5][Side];
#pragma GCC unroll 5
    for (int n = 0; n < Side; ++n) {
      const float* from = taps + n * stride + group;
      const Floats a = load(from), b = load(from + Side * stride);
      const Floats c = load(from + 2 * Side * stride);
#pragma GCC unroll 5
      for (int k = 0; k < 5; ++k) {
        half[k][n] = along.at[k][0] * a + along.at[k][1] * b + along.at[k][2] * c;
      }
    }
    for (int point = 0; point < Points; ++point) {
      float* to = plan.weights + point * 5 * stride + group;
#pragma GCC unroll 5
      for (int k = 0; k < 5; ++k) {
        Floats sum = across.at[point][0] * half[k][0];
        for (int n = 1; n < Side; ++n) sum += across.at[point][n] * half[k][n];
        store(to + k * stride, sum);
      }
    }
  }
}

void transform_weights(const ReducedPlan& plan, const float* taps) {
  constexpr double near = kNear, far = kFar;
  static constexpr WeightMatrix<4, 3> four({0, 1, -1});
  static constexpr WeightMatrix<6, 3> six({0, near, -near, far, -far});
  static constexpr WeightMatrix<6, 5> six_of_five({0, near, -near, far, -far});
  if (plan.side == 5) return transform_weights_of<5, 6>(plan, taps, six_of_five);
  if (plan.columns == 4) return transform_weights_of<3, 6>(plan, taps, six);
  transform_weights_of<3, 4>(plan, taps, four);
}

constexpr ReducedKernels reduced_kernels() {
  return {kLanes, take, transform_weights, correlate_reduced};
}

}  // namespace
}  // namespace mmsw
