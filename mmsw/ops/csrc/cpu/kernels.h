// The loops over one plane that the CPU backend is made of, one set per instruction set.
#pragma once

#include <cstdint>

namespace mmsw {

// N x N weights of one small kernel, or of a sum of them, in an arm whose taps run along the rows.
// Row 0 of the weights meets row `y + offset` of the map.
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

template <typename T>
struct PlaneKernels {
  // out = init (or, when accumulating, out) + sum over blocks of the correlation of `map` with it.
  void (*correlate)(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t side,
                    T init, bool accumulate, T* out, int64_t out_stride);
  // grad[tap, n] += sum over the map of grad_out[y, x] * map[y + first + tap, x + n - side / 2]
  void (*correlate_grad)(Plane<const T> map, Plane<const T> grad_out, int64_t first, int64_t taps,
                         int64_t side, T* grad);
  // out[x, y] = in[y, x]
  void (*transpose)(const T* in, int64_t in_stride, int64_t height, int64_t width, T* out,
                    int64_t out_stride);
  // out[x] += in[x] for x in [0, count)
  void (*add)(const T* in, int64_t count, T* out);
};

struct InstructionSet {
  const char* name;
  PlaneKernels<float> f32;
  PlaneKernels<double> f64;
};

const InstructionSet& baseline_kernels();
#if defined(__x86_64__)
const InstructionSet& avx2_kernels();
const InstructionSet& avx512_kernels();
#endif

}  // namespace mmsw
