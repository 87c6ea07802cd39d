// Vectors of the instruction set that is being compiled for, and conversions to and from the types
// that maps are stored in. plane_loops.h says how this is included.
#pragma once

#include <cstdint>

#include "kernels.h"

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
  return value - typename Simd<T>::V{};  // unlike a sum, no operation: it keeps -0, too
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

// Four floats: shuffles of longer vectors cost more where they cross the halves.
typedef float Four __attribute__((vector_size(16)));
typedef float LooseFour __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t FourInts __attribute__((vector_size(16)));
MMSW_INLINE Four load_four(const float* from) { return *reinterpret_cast<const LooseFour*>(from); }
MMSW_INLINE void store_four(float* to, Four v) { *reinterpret_cast<LooseFour*>(to) = v; }

#if defined(__clang__)
#define MMSW_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MMSW_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, FourInts{__VA_ARGS__})
#endif

MMSW_INLINE void transpose_four(Four (&v)[4]) {
  const Four a = MMSW_SHUFFLE(v[0], v[1], 0, 4, 1, 5), b = MMSW_SHUFFLE(v[0], v[1], 2, 6, 3, 7);
  const Four c = MMSW_SHUFFLE(v[2], v[3], 0, 4, 1, 5), d = MMSW_SHUFFLE(v[2], v[3], 2, 6, 3, 7);
  v[0] = MMSW_SHUFFLE(a, c, 0, 1, 4, 5);
  v[1] = MMSW_SHUFFLE(a, c, 2, 3, 6, 7);
  v[2] = MMSW_SHUFFLE(b, d, 0, 1, 4, 5);
  v[3] = MMSW_SHUFFLE(b, d, 2, 3, 6, 7);
}

// Half precision, as many values as a vector of float has lanes. Widened in vectors of bits.
typedef float Floats __attribute__((vector_size(MMSW_VECTOR_BYTES)));
typedef uint32_t Bits __attribute__((vector_size(MMSW_VECTOR_BYTES)));
typedef int32_t Signed __attribute__((vector_size(MMSW_VECTOR_BYTES)));
typedef uint16_t HalfBits __attribute__((vector_size(MMSW_VECTOR_BYTES / 2)));
typedef uint16_t LooseHalfBits
    __attribute__((vector_size(MMSW_VECTOR_BYTES / 2), aligned(2), may_alias));

MMSW_INLINE Bits load_bits(const uint16_t* from) {
  const HalfBits narrow = *reinterpret_cast<const LooseHalfBits*>(from);
  return __builtin_convertvector(narrow, Bits);
}

MMSW_INLINE void store_bits(uint16_t* to, Bits bits) {
  *reinterpret_cast<LooseHalfBits*>(to) = __builtin_convertvector(bits, HalfBits);
}

MMSW_INLINE Bits choose(Signed mask, Bits yes, Bits no) {
  return (reinterpret_cast<Bits>(mask) & yes) | (~reinterpret_cast<Bits>(mask) & no);
}

// The second argument only says which of the two types it is.
MMSW_INLINE Floats widened(Bits bits, const BFloat16*) {
  return reinterpret_cast<Floats>(bits << 16);
}

MMSW_INLINE Bits narrowed(Floats value, const BFloat16*) {
  const Bits bits = reinterpret_cast<Bits>(value);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return choose(value == value, rounded, Bits{} + 0x7fc0u);
}

MMSW_INLINE Floats widened(Bits half, const Half*) {
  const Bits magnitude = (half & 0x7fffu) << 13;
  // The exponents differ by 112; the product also makes subnormal numbers normal.
  Bits wide = reinterpret_cast<Bits>(reinterpret_cast<Floats>(magnitude) * 0x1p112f);
  const Signed special =
      reinterpret_cast<Signed>(magnitude) >= reinterpret_cast<Signed>(Bits{} + 0xf800000u);
  wide |= reinterpret_cast<Bits>(special) & 0x7f800000u;  // infinity and NaN
  return reinterpret_cast<Floats>(wide | (half & 0x8000u) << 16);
}

MMSW_INLINE Bits narrowed(Floats value, const Half*) {
  const Bits bits = reinterpret_cast<Bits>(value), magnitude = bits & 0x7fffffffu;
  const Signed size = reinterpret_cast<Signed>(magnitude);
  const Bits normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Adding 0.5 leaves the value in units of 2 ** -24, the smallest half, rounded by the addition.
  const Floats shifted = reinterpret_cast<Floats>(magnitude) + 0.5f;
  const Bits subnormal = reinterpret_cast<Bits>(shifted) - 0x3f000000u;
  Bits half = choose(size < reinterpret_cast<Signed>(Bits{} + (113u << 23)), subnormal, normal);
  half = choose(size >= reinterpret_cast<Signed>(Bits{} + (143u << 23)), Bits{} + 0x7c00u, half);
  half = choose(value == value, half, Bits{} + 0x7e00u);
  return half | (bits & 0x80000000u) >> 16;
}

template <typename S>
MMSW_INLINE Floats load_wide(const S* from) {
  return widened(load_bits(&from->bits), from);
}

template <typename S>
MMSW_INLINE void store_narrow(S* to, Floats value) {
  store_bits(&to->bits, narrowed(value, to));
}

#if defined(MMSW_F16C)
MMSW_INLINE Floats load_wide(const Half* from) {
  return reinterpret_cast<Floats>(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

MMSW_INLINE void store_narrow(Half* to, Floats value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph(reinterpret_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
}
#endif

MMSW_INLINE Simd<float>::V load_wide(const float* from) { return load(from); }
MMSW_INLINE Simd<double>::V load_wide(const double* from) { return load(from); }
MMSW_INLINE void store_narrow(float* to, Simd<float>::V value) { store(to, value); }
MMSW_INLINE void store_narrow(double* to, Simd<double>::V value) { store(to, value); }

}  // namespace
}  // namespace mmsw
