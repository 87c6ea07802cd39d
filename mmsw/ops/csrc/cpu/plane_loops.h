// Register-tiled loops over one plane. Included once per instruction set, after the target has been
// chosen and with MMSW_VECTOR_BYTES, MMSW_REGISTERS, MMSW_NAME and
// MMSW_KERNELS defined. Everything is in an
// unnamed namespace: code for one instruction set must not be linked into another.
//
// A vector holds neighbouring columns. Weights are broadcast. Every loaded vector serves up to N
// rows of a tile, so that multiply-adds and not loads are the limit.

namespace mmsw {
namespace {

#define MMSW_INLINE inline __attribute__((always_inline))

template <typename T>
struct Simd;
template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(MMSW_VECTOR_BYTES)));
  typedef float Loose __attribute__((vector_size(MMSW_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(MMSW_VECTOR_BYTES)));
  typedef double Loose __attribute__((vector_size(MMSW_VECTOR_BYTES), aligned(8), may_alias));
};

template <typename T>
constexpr int64_t lanes = MMSW_VECTOR_BYTES / sizeof(T);

template <typename T>
MMSW_INLINE typename Simd<T>::V load(const T* from) {
  return *reinterpret_cast<const typename Simd<T>::Loose*>(from);
}

template <typename T>
MMSW_INLINE void store(T* to, typename Simd<T>::V value) {
  *reinterpret_cast<typename Simd<T>::Loose*>(to) = value;
}

template <typename T>
MMSW_INLINE typename Simd<T>::V splat(T value) {
  return typename Simd<T>::V{} + value;
}

// Keeps a loaded vector in its register: compilers like to load it again for every use, and loads
// are what these loops run out of first.
#if defined(__x86_64__)
#define MMSW_KEEP(value) asm("" : "+v"(value))
#elif defined(__aarch64__)
#define MMSW_KEEP(value) asm("" : "+w"(value))
#else
#define MMSW_KEEP(value)
#endif

// Adds one block to a tile of Rows x (Columns vectors). Side 0 stands for any side: tap by tap.
template <typename T, int Side, int Rows, int Columns>
MMSW_INLINE void add_block(const T* corner, int64_t stride, const T* weight, int64_t side,
                           typename Simd<T>::V (&sum)[Rows][Columns]) {
  using V = typename Simd<T>::V;
  if constexpr (Side == 0) {
    for (int64_t tap = 0; tap < side; ++tap) {
      for (int64_t n = 0; n < side; ++n) {
        const V w = splat(weight[tap * side + n]);
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
          for (int column = 0; column < Columns; ++column) {
            sum[row][column] +=
                w * load(corner + (row + tap) * stride + n + column * lanes<T>);
          }
        }
      }
    }
  } else {
    for (int n = 0; n < Side; ++n) {
      V w[Side];
#pragma GCC unroll 8
      for (int tap = 0; tap < Side; ++tap) w[tap] = splat(weight[tap * Side + n]);
      const T* from = corner + n;
#pragma GCC unroll 32
      for (int line = 0; line < Rows + Side - 1; ++line, from += stride) {
        asm("" : "+r"(from));  // one running address instead of one per line
#pragma GCC unroll 4
        for (int column = 0; column < Columns; ++column) {
          V value = load(from + column * lanes<T>);
          MMSW_KEEP(value);
#pragma GCC unroll 8
          for (int tap = 0; tap < Side; ++tap) {
            const int row = line - tap;
            if (row >= 0 && row < Rows) sum[row][column] += w[tap] * value;
          }
        }
      }
    }
  }
}

template <typename T, int Side, int Rows, int Columns>
MMSW_INLINE void correlate_tile(Plane<const T> map, const Block<T>* blocks, int64_t count,
                                int64_t side, T init, bool accumulate, int64_t y, int64_t x,
                                T* out, int64_t out_stride) {
  using V = typename Simd<T>::V;
  const int64_t rows = map.height - y < Rows ? map.height - y : Rows;
  const int64_t columns = map.width - x;
  const bool whole = rows == Rows && columns >= Columns * lanes<T>;
  out += y * out_stride + x;
  V sum[Rows][Columns];
  T edge[Rows][Columns * lanes<T>];  // stands in for `out` where the tile hangs over
  if (!whole) {
    for (int row = 0; row < Rows; ++row) {
      for (int64_t column = 0; column < Columns * lanes<T>; ++column) {
        const bool inside = row < rows && column < columns;
        edge[row][column] = accumulate && inside ? out[row * out_stride + column] : init;
      }
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int column = 0; column < Columns; ++column) {
      if (!whole) {
        sum[row][column] = load(&edge[row][column * lanes<T>]);
      } else if (accumulate) {
        sum[row][column] = load(out + row * out_stride + column * lanes<T>);
      } else {
        sum[row][column] = splat(init);
      }
    }
  }
  const T* corner = map.data + y * map.stride + x - side / 2;
  for (int64_t block = 0; block < count; ++block) {
    const int64_t offset = blocks[block].offset;
    if (y + offset >= map.height || y + offset + Rows + side - 1 <= 0) continue;
    add_block<T, Side, Rows, Columns>(corner + offset * map.stride, map.stride,
                                      blocks[block].weight, side, sum);
  }
  if (whole) {
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
      for (int column = 0; column < Columns; ++column) {
        store(out + row * out_stride + column * lanes<T>, sum[row][column]);
      }
    }
    return;
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int column = 0; column < Columns; ++column) {
      store(&edge[row][column * lanes<T>], sum[row][column]);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns && column < Columns * lanes<T>; ++column) {
      out[row * out_stride + column] = edge[row][column];
    }
  }
}

template <typename T, int Side>
void correlate_side(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t side,
                    T init, bool accumulate, T* out, int64_t out_stride) {
  constexpr int rows = MMSW_REGISTERS >= 32 ? 8 : 4;
  int64_t x = 0;
  for (; map.width - x > lanes<T>; x += 2 * lanes<T>) {
    for (int64_t y = 0; y < map.height; y += rows) {
      correlate_tile<T, Side, rows, 2>(map, blocks, count, side, init, accumulate, y, x, out,
                                       out_stride);
    }
  }
  if (x >= map.width) return;
  for (int64_t y = 0; y < map.height; y += rows) {
    correlate_tile<T, Side, rows, 1>(map, blocks, count, side, init, accumulate, y, x, out,
                                     out_stride);
  }
}

template <typename T>
void correlate(Plane<const T> map, const Block<T>* blocks, int64_t count, int64_t side, T init,
               bool accumulate, T* out, int64_t out_stride) {
  switch (side) {
    case 3:
      return correlate_side<T, 3>(map, blocks, count, side, init, accumulate, out, out_stride);
    case 5:
      return correlate_side<T, 5>(map, blocks, count, side, init, accumulate, out, out_stride);
    default:
      return correlate_side<T, 0>(map, blocks, count, side, init, accumulate, out, out_stride);
  }
}

// Gradient of Taps x Side taps at once: each holds a vector of partial sums over the whole map.
template <typename T, int Taps, int Side>
MMSW_INLINE void grad_taps(Plane<const T> map, Plane<const T> grad_out, int64_t first,
                           int64_t column, int64_t taps, int64_t side, T* grad) {
  using V = typename Simd<T>::V;
  constexpr int rows = MMSW_REGISTERS >= 32 ? 4 : 2;
  V sum[Taps][Side];
#pragma GCC unroll 16
  for (int tap = 0; tap < Taps; ++tap) {
#pragma GCC unroll 8
    for (int n = 0; n < Side; ++n) sum[tap][n] = V{};
  }
  int64_t from = -(first + Taps - 1) - (rows - 1);
  from = from <= 0 ? 0 : from / rows * rows;
  const int64_t last = map.height - first < map.height ? map.height - first : map.height;
  for (int64_t x = 0; x < map.width; x += lanes<T>) {
    for (int64_t y = from; y < last; y += rows) {
      V g[rows];
#pragma GCC unroll 4
      for (int row = 0; row < rows; ++row) {
        g[row] = load(grad_out.data + (y + row) * grad_out.stride + x);
      }
      const T* line = map.data + (y + first) * map.stride + x + column - side / 2;
#pragma GCC unroll 32
      for (int i = 0; i < Taps + rows - 1; ++i, line += map.stride) {
        asm("" : "+r"(line));
#pragma GCC unroll 8
        for (int n = 0; n < Side; ++n) {
          V value = load(line + n);
          MMSW_KEEP(value);
#pragma GCC unroll 4
          for (int row = 0; row < rows; ++row) {
            const int tap = i - row;
            if (tap >= 0 && tap < Taps) sum[tap][n] += g[row] * value;
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int tap = 0; tap < Taps; ++tap) {
    if (tap >= taps) continue;
#pragma GCC unroll 8
    for (int n = 0; n < Side; ++n) {
      T total[lanes<T>];
      store(total, sum[tap][n]);
#pragma GCC unroll 16
      for (int64_t half = lanes<T> / 2; half > 0; half /= 2) {
        for (int64_t lane = 0; lane < half; ++lane) total[lane] += total[lane + half];
      }
      grad[tap * side + column + n] += total[0];
    }
  }
}

template <typename T, int Taps, int Side>
void grad_side(Plane<const T> map, Plane<const T> grad_out, int64_t first, int64_t taps,
               int64_t side, T* grad) {
  for (int64_t tap = 0; tap < taps; tap += Taps) {
    // taps that only ever read the frame have no gradient
    if (first + tap >= map.height || first + tap + Taps <= -map.height) continue;
    for (int64_t column = 0; column < side; column += Side) {
      grad_taps<T, Taps, Side>(map, grad_out, first + tap, column, taps - tap, side,
                               grad + tap * side);
    }
  }
}

template <typename T>
void correlate_grad(Plane<const T> map, Plane<const T> grad_out, int64_t first, int64_t taps,
                    int64_t side, T* grad) {
  constexpr bool many = MMSW_REGISTERS >= 32;
  if (side == 3) return grad_side<T, many ? 8 : 3, 3>(map, grad_out, first, taps, side, grad);
  if (side == 5) return grad_side<T, many ? 5 : 2, 5>(map, grad_out, first, taps, side, grad);
  return grad_side<T, 8, 1>(map, grad_out, first, taps, side, grad);
}

// Perfect shuffle of the lanes of two vectors. As many rounds of it as there are bits in the number
// of lanes transpose a square of vectors.
#if MMSW_VECTOR_BYTES == 64
#define MMSW_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define MMSW_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif MMSW_VECTOR_BYTES == 32
#define MMSW_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define MMSW_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define MMSW_LOW 0, 4, 1, 5
#define MMSW_HIGH 2, 6, 3, 7
#endif

MMSW_INLINE Simd<float>::V interleave_low(Simd<float>::V a, Simd<float>::V b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, MMSW_LOW);
#else
  typedef int32_t Index __attribute__((vector_size(MMSW_VECTOR_BYTES)));
  return __builtin_shuffle(a, b, Index{MMSW_LOW});
#endif
}

MMSW_INLINE Simd<float>::V interleave_high(Simd<float>::V a, Simd<float>::V b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, MMSW_HIGH);
#else
  typedef int32_t Index __attribute__((vector_size(MMSW_VECTOR_BYTES)));
  return __builtin_shuffle(a, b, Index{MMSW_HIGH});
#endif
}

MMSW_INLINE void transpose_square(const float* in, int64_t in_stride, float* out,
                                  int64_t out_stride) {
  constexpr int side = lanes<float>;
  Simd<float>::V now[side], next[side];
#pragma GCC unroll 16
  for (int row = 0; row < side; ++row) now[row] = load(in + row * in_stride);
#pragma GCC unroll 4
  for (int round = 1; round < side; round *= 2) {
#pragma GCC unroll 16
    for (int row = 0; row < side / 2; ++row) {
      next[2 * row] = interleave_low(now[row], now[row + side / 2]);
      next[2 * row + 1] = interleave_high(now[row], now[row + side / 2]);
    }
#pragma GCC unroll 16
    for (int row = 0; row < side; ++row) now[row] = next[row];
  }
#pragma GCC unroll 16
  for (int row = 0; row < side; ++row) store(out + row * out_stride, now[row]);
}

template <typename T>
void transpose_part(const T* in, int64_t in_stride, int64_t y0, int64_t y1, int64_t x0, int64_t x1,
                    T* out, int64_t out_stride) {
  for (int64_t y = y0; y < y1; ++y) {
    for (int64_t x = x0; x < x1; ++x) out[x * out_stride + y] = in[y * in_stride + x];
  }
}

void transpose_map(const float* in, int64_t in_stride, int64_t height, int64_t width, float* out,
                   int64_t out_stride) {
  constexpr int64_t side = lanes<float>;
  const int64_t rows = height / side * side, columns = width / side * side;
  for (int64_t y = 0; y < rows; y += side) {
    for (int64_t x = 0; x < columns; x += side) {
      transpose_square(in + y * in_stride + x, in_stride, out + x * out_stride + y, out_stride);
    }
  }
  transpose_part<float>(in, in_stride, 0, rows, columns, width, out, out_stride);
  transpose_part<float>(in, in_stride, rows, height, 0, width, out, out_stride);
}

void transpose_map(const double* in, int64_t in_stride, int64_t height, int64_t width, double* out,
                   int64_t out_stride) {
  transpose_part<double>(in, in_stride, 0, height, 0, width, out, out_stride);
}

template <typename T>
void add(const T* in, int64_t count, T* out) {
  int64_t x = 0;
  for (; x + lanes<T> <= count; x += lanes<T>) store(out + x, load(out + x) + load(in + x));
  for (; x < count; ++x) out[x] += in[x];
}

template <typename T>
constexpr PlaneKernels<T> plane_kernels() {
  return {correlate<T>, correlate_grad<T>, transpose_map, add<T>};
}

}  // namespace

const InstructionSet& MMSW_KERNELS() {
  static const InstructionSet set{MMSW_NAME, plane_kernels<float>(), plane_kernels<double>()};
  return set;
}

}  // namespace mmsw
