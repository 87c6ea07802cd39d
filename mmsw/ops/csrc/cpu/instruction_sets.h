// The instruction set and the arithmetic in use, and its loops by the type that they work on.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "kernels.h"

namespace mmsw {

extern const InstructionSet* instruction_set;

// How arms are run: all directly, with fewer multiplications where that wins, or wherever it can
// be.
enum class Arithmetic { direct, reduced, always };
extern Arithmetic arithmetic;

template <typename T>
const PlaneKernels<T>& plane_kernels();
template <>
inline const PlaneKernels<float>& plane_kernels() {
  return instruction_set->f32;
}
template <>
inline const PlaneKernels<double>& plane_kernels() {
  return instruction_set->f64;
}

template <typename T>
int64_t vector_lanes() {
  return instruction_set->vector_bytes / static_cast<int64_t>(sizeof(T));
}

// What torch stores as S: the type T that is computed in, and copies between the two.
template <typename S, typename Computed, typename Bits,
          CopyKernels<Computed, Bits> InstructionSet::* Copies>
struct StoredAs {
  using T = Computed;
  using Raw = Bits;  // the same as S to the compiled loops
  static void widen(const S* in, int64_t in_stride, int64_t height, int64_t width, T* out,
                    int64_t out_stride) {
    (instruction_set->*Copies).widen(bits(in), in_stride, height, width, out, out_stride);
  }
  static void widen_transposed(const S* in, int64_t in_stride, int64_t height, int64_t width,
                               T* out, int64_t out_stride) {
    (instruction_set->*Copies)
        .widen_transposed(bits(in), in_stride, height, width, out, out_stride);
  }
  static void narrow(const T* in, int64_t in_stride, int64_t height, int64_t width, S* out,
                     int64_t out_stride) {
    (instruction_set->*Copies).narrow(in, in_stride, height, width, bits(out), out_stride);
  }
  static void narrow_transposed(const T* in, int64_t in_stride, int64_t height, int64_t width,
                                S* out, int64_t out_stride) {
    (instruction_set->*Copies)
        .narrow_transposed(in, in_stride, height, width, bits(out), out_stride);
  }
  static void add(const S* in, int64_t count, T* out) {
    (instruction_set->*Copies).add(bits(in), count, out);
  }

 private:
  static const Bits* bits(const S* map) { return reinterpret_cast<const Bits*>(map); }
  static Bits* bits(S* map) { return reinterpret_cast<Bits*>(map); }
};

template <typename S>
struct Stored;
template <>
struct Stored<float> : StoredAs<float, float, float, &InstructionSet::copy_f32> {};
template <>
struct Stored<double> : StoredAs<double, double, double, &InstructionSet::copy_f64> {};
template <>
struct Stored<c10::Half> : StoredAs<c10::Half, float, Half, &InstructionSet::copy_f16> {};
template <>
struct Stored<c10::BFloat16>
    : StoredAs<c10::BFloat16, float, BFloat16, &InstructionSet::copy_bf16> {};

template <typename S>
using Computed = typename Stored<S>::T;
template <typename S>
using Raw = typename Stored<S>::Raw;

}  // namespace mmsw
