// The loops over one plane that the CPU backend is made of, one set per instruction set.
#pragma once

#include <cstdint>

namespace mmsw {

// N x N weights of one slot of an arm, whose taps run along the rows: output row y meets map rows
// from y + offset on.
template <typename T>
struct Block {
  int64_t offset;
  const T* weight;
};

// A map inside a zeroed frame: `data` points at row 0, column 0; rows are `stride` elements apart.
template <typename T>
struct Plane {
  T* data;
  int64_t stride;
  int64_t height;
  int64_t width;
};

// What a frame must hold around its map so that whole tiles can be read: rows above and below,
// columns to the left (a multiple of the longest vector) and to the right.
inline int64_t frame_rows(int64_t side) { return 16 + side; }
inline int64_t frame_left(int64_t side) { return (side / 2 + 15) / 16 * 16; }
inline int64_t frame_right(int64_t side) { return 32 + side; }

// What sums are written to must hold whole tiles, too.
inline int64_t sum_rows(int64_t height) { return (height + 15) / 16 * 16; }
inline int64_t sum_columns(int64_t width) { return (width + 31) / 32 * 32; }

// Weights of neighbouring columns of some rows of a kernel: output (y, x) meets map rows from
// y + row on and map columns from x + column on. Rows of weights are `weight_stride` apart.
template <typename T>
struct Strip {
  int64_t row, column, taps, columns;  // the taps: at most kMostTaps rows
  const T* weight;
};

constexpr int kMostTaps = 5;

template <typename T>
struct PlaneKernels {
  // out = init (or, when accumulating, out) + sum over blocks of the correlation of `map` with it.
  void (*correlate)(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t side, T init,
                    bool accumulate, T* out, int64_t out_stride);
  // out += the correlation of `map` with a block of any number of taps
  void (*add_taps)(Plane<const T> map, Block<T> block, int64_t taps, int64_t side, T* out,
                   int64_t out_stride);
  // out = init + the sum over strips of the correlation of `map` with it.
  // Columns that lie beyond the plane for all of a tile are left out.
  void (*correlate_strips)(Plane<const T> map, const Strip<T>* strips, int64_t count,
                           int64_t weight_stride, T init, T* out, int64_t out_stride);
  // sums[tap, n] += sum over the map of grad_out[y, x] * map[y + first + tap, x + n - side / 2].
  // Each element of `sums` is a vector of partial sums; the order of additions to it does not
  // depend on `first` and `taps`.
  void (*correlate_grad)(Plane<const T> map, Plane<const T> grad_out, int64_t first, int64_t taps,
                         int64_t side, T* sums);
  // out[i] = the sum of vector i of `sums`
  void (*reduce)(const T* sums, int64_t count, T* out);
};

// The bits of the types that maps are stored in and that are not computed in.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Copies between maps stored as S and maps of the type T that is computed in. Widening is exact,
// narrowing rounds to nearest, ties to even. Transposing, in[y, x] becomes out[x, y].
template <typename T, typename S>
struct CopyKernels {
  void (*widen)(const S* in, int64_t in_stride, int64_t height, int64_t width, T* out,
                int64_t out_stride);
  void (*widen_transposed)(const S* in, int64_t in_stride, int64_t height, int64_t width, T* out,
                           int64_t out_stride);
  void (*narrow)(const T* in, int64_t in_stride, int64_t height, int64_t width, S* out,
                 int64_t out_stride);
  void (*narrow_transposed)(const T* in, int64_t in_stride, int64_t height, int64_t width, S* out,
                            int64_t out_stride);
  // out[x] += in[x] for x in [0, count)
  void (*add)(const S* in, int64_t count, T* out);
};

// A row of a map of hidden units; GELU is the exact one. Values are computed in T.
template <typename T, typename S>
struct HiddenKernels {
  // out = gelu(in + bias), the same row or another one; returns the sum of the squares of that,
  // before it is rounded to S.
  T (*bias_gelu)(const S* in, S* out, int64_t count, T bias);
  // grad = (grad + factor * gelu(x)) * gelu'(x) for x = in + bias; returns the sum of that.
  T (*gelu_grad)(const S* in, S* grad, int64_t count, T bias, T factor);
};

// Neighbouring positions of a sample, whose layer norm over the channels is taken. Strides are
// those between channels and count elements. What is kept in T has room for `width` positions,
// whole vectors.
template <typename T, typename S>
struct ChannelBlock {
  int64_t channels, positions, width;
  const S *in, *grad;  // the map; the gradient of its norm, for the pass back
  int64_t in_stride, grad_stride;
  S* out;  // the norm, or the gradient of the map
  int64_t out_stride;
  const T *weight, *bias;           // [channels]
  T eps;                            // added to the variance
  T *mean, *rstd, *first, *second;  // per position; the last two are scratch
  T *values, *grads;                // scratch, [channels][width]
  T* sums;                          // [2][channels]: gradients of weight and bias
};

template <typename T, typename S>
struct ChannelKernels {
  void (*channel_norm)(const ChannelBlock<T, S>& block);  // writes `out`, `mean` and `rstd`
  // Reads `mean` and `rstd`, zeros beyond the positions; writes `out` and `sums`.
  void (*channel_norm_grad)(const ChannelBlock<T, S>& block);
};

constexpr int kMostMaps = 5;

// The same row of `n` maps, 1 to kMostMaps, `count` positions of each. Values are computed in T.
template <typename T, typename S>
struct RowKernels {
  // The means, and the covariances [n][n], divided by `count`.
  void (*moments)(const S* const* rows, int64_t n, int64_t count, double* mean, double* covariance);
  // sums[i] = the sum of grad * (rows[i] - mean[i]); sums[n] = the sum of grad.
  void (*products)(const S* grad, const S* const* rows, int64_t n, int64_t count,
                   const double* mean, double* sums);
  // outs[j] = the sum over i of factors[j][i] * (rows[i] - pivots[i]), plus factors[j][n], for j in
  // [0, m).
  void (*sums)(const S* const* rows, int64_t n, int64_t count, const T* pivots, const T* factors,
               S* const* outs, int64_t m);
};

// Neighbouring groups: the first one, and the map's tile row that it meets in tile row 0.
struct GroupRun {
  int32_t group, row;
};

// Tile rows whose sums are kept in registers, and where their runs of 3, 2 and 1 groups begin.
struct RowTile {
  int32_t first, count;
  int32_t threes, twos, ones, end;
};

// All that the loops read and write. Strides count elements. A lane of a vector holds a column
// tile.
struct ReducedPlan {
  int64_t height, width, side, columns;  // of a plane; N; m
  int64_t vectors;                       // of column tiles
  int64_t first_row, grid_rows;          // of the map's tile rows: where they begin, how many

  float* phases;  // [row][column % m][column / m], with zero rows before and after
  int64_t phase_stride;
  float* domain;  // [component][tile row of the map][lane], with zero rows before and after
  int64_t domain_stride;
  float* weights;  // [component][group]
  int64_t weight_stride;
  float* sums;     // [component][tile row][lane]
  float* outputs;  // [row][column % m][lane]

  const RowTile* tiles;
  int64_t tile_count;
  const GroupRun* runs;

  int64_t components() const { return 5 * (columns + side - 1); }
};

constexpr int kReducedRows = 8;  // the largest number of tile rows in registers

struct ReducedKernels {
  int64_t lanes;
  // Takes a map, or its transpose. False: not all of it is finite and moderate.
  bool (*take)(const ReducedPlan& plan, Plane<const float> map, bool turned);
  // `taps` is [3][N][group]
  void (*transform_weights)(const ReducedPlan& plan, const float* taps);
  // out = init (or, when accumulating, out) + the arm over the map, or the transpose of that.
  void (*correlate)(const ReducedPlan& plan, bool turned, float init, bool accumulate, float* out,
                    int64_t out_stride);
};

struct InstructionSet {
  const char* name;
  int vector_bytes;
  int tile_rows, tile_columns;  // the latter in vectors
  PlaneKernels<float> f32;
  PlaneKernels<double> f64;
  CopyKernels<float, float> copy_f32;
  CopyKernels<double, double> copy_f64;
  CopyKernels<float, Half> copy_f16;
  CopyKernels<float, BFloat16> copy_bf16;
  ReducedKernels reduced;
  HiddenKernels<float, float> hidden_f32;
  HiddenKernels<double, double> hidden_f64;
  HiddenKernels<float, Half> hidden_f16;
  HiddenKernels<float, BFloat16> hidden_bf16;
  ChannelKernels<float, float> channel_f32;
  ChannelKernels<double, double> channel_f64;
  ChannelKernels<float, Half> channel_f16;
  ChannelKernels<float, BFloat16> channel_bf16;
  RowKernels<float, float> rows_f32;
  RowKernels<double, double> rows_f64;
  RowKernels<float, Half> rows_f16;
  RowKernels<float, BFloat16> rows_bf16;
};

const InstructionSet& baseline_kernels();
#if defined(__x86_64__)
const InstructionSet& avx2_kernels();
const InstructionSet& avx512_kernels();
#endif

}  // namespace mmsw
