// From run-time types and sizes to template arguments.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "grad_weight.cuh"
#include "launch.h"

namespace mmsw {

template <>
struct Convert<__half> {
  MMSW_HOST_DEVICE static float load(__half value) { return __half2float(value); }
  MMSW_HOST_DEVICE static __half store(float value) { return __float2half_rn(value); }
};

template <>
struct Convert<__nv_bfloat16> {
  MMSW_HOST_DEVICE static float load(__nv_bfloat16 value) { return __bfloat162float(value); }
  MMSW_HOST_DEVICE static __nv_bfloat16 store(float value) { return __float2bfloat16_rn(value); }
};

template <typename T>
struct TypeTag {
  using type = T;
};

template <typename Function>
cudaError_t with_type(Dtype dtype, Function function) {
  switch (dtype) {
    case Dtype::kFloat32:
      return function(TypeTag<float>());
    case Dtype::kFloat16:
      return function(TypeTag<__half>());
    case Dtype::kBFloat16:
      return function(TypeTag<__nv_bfloat16>());
    case Dtype::kFloat64:
      return function(TypeTag<double>());
  }
  return cudaErrorInvalidValue;
}

inline int accumulator_bytes(Dtype dtype) { return dtype == Dtype::kFloat64 ? 8 : 4; }

// Whether `with_side` compiled the side in.
inline bool known_side(int side, Dtype dtype) {
  return dtype != Dtype::kFloat64 && (side == 3 || side == 5);
}

// Slots of the weight gradient that a warp owns; 0 where it owns one weight.
inline int warp_slots(int side, Dtype dtype) {
  return !known_side(side, dtype) ? 0 : side == 3 ? kWarpSlots<3> : kWarpSlots<5>;
}

// The sides that the published networks use are compiled in, with every side of a tile; 0 and 0
// stand for any others. float64, which is there for checks, always takes the loops for any side.
template <typename T, typename Function>
cudaError_t with_side(int side, int tile, Function function) {
  using std::integral_constant;
  if constexpr (!std::is_same<T, double>::value) {
    const auto with_tile = [&](auto known) {
      if (tile == 8) return function(known, integral_constant<int, 8>());
      if (tile == 16) return function(known, integral_constant<int, 16>());
      return function(known, integral_constant<int, 32>());
    };
    if (side == 3) return with_tile(integral_constant<int, 3>());
    if (side == 5) return with_tile(integral_constant<int, 5>());
  }
  return function(integral_constant<int, 0>(), integral_constant<int, 0>());
}

}  // namespace mmsw
