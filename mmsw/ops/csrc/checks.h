// Checks of what an operator gets, before any of it is read by address.
#pragma once

#include <string>

#include "operators.h"

namespace mmsw {

using at::IntArrayRef;

inline void check_floating(const Tensor& tensor, const char* name) {
  const auto dtype = tensor.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16,
      name, " must hold float32, float64, float16 or bfloat16, got ", dtype);
}

inline void check_device(const Tensor& tensor, const char* name, const Tensor& map) {
  TORCH_CHECK_VALUE(tensor.device() == map.device(), name, " is on ", tensor.device(),
                    ", the map on ", map.device(), "; move one of them with .to()");
}

// What goes with a map: its sizes follow from those of the map, the rest is the same.
inline void check_fits(const Tensor& tensor, const char* name, const Tensor& map,
                       IntArrayRef sizes) {
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, name, " must be ", sizes, ", got ", tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == map.scalar_type(), name, " must hold ",
                   map.scalar_type(), " as the map does, got ", tensor.scalar_type());
  check_device(tensor, name, map);
}

inline void check_map(const Tensor& map, const char* name, int64_t channels, int64_t border = 0) {
  const std::string more = border > 0 ? " + " + std::to_string(border) : "";
  check_floating(map, name);
  TORCH_CHECK_VALUE(
      map.dim() == 4 && map.size(1) == channels && map.size(2) > border && map.size(3) > border,
      name, " must be [B, ", channels, ", H", more, ", W", more, "] with H, W >= 1, got ",
      map.sizes());
}

// Whether all shifts are those of a slot. `side` is odd, so it has an inverse modulo a power of
// two; times it, and unsigned, exactly the multiples of `side` below `groups * side` are below
// `groups`.
template <typename Signed, typename Unsigned>
bool are_shifts(const Tensor& table, const PatternSizes& sizes) {
  const auto side = static_cast<Unsigned>(sizes.side), count = static_cast<Unsigned>(sizes.groups);
  const auto largest = static_cast<Unsigned>(Signed{sizes.largest_shift()});
  Unsigned inverse = side;  // right in three bits; every round doubles them
  for (int round = 0; round < 5; ++round) inverse *= 2 - side * inverse;
  const Signed* shift = table.const_data_ptr<Signed>();
  bool good = true;
  for (int64_t i = 0; i < table.numel(); ++i) {
    good &= (largest - static_cast<Unsigned>(shift[i])) * inverse < count;
  }
  return good;
}

// Whether row `c` names groups of channel `c` only.
template <typename Integer>
bool are_groups(const Tensor& table, int64_t groups) {
  const Integer* picked = table.const_data_ptr<Integer>();
  const int64_t reps = table.size(1);
  bool good = true;
  for (int64_t i = 0; i < table.numel(); ++i) {
    const int64_t first = i / reps * groups;
    good &= picked[i] >= first && picked[i] < first + groups;
  }
  return good;
}

// The tables of a ShiftPattern in the types that backends read, and the pattern that they make.
struct Tables {
  Tensor shift, identity;
  Pattern pattern;

  const PatternSizes& sizes() const { return pattern.sizes; }
  int64_t channels() const { return pattern.channels; }
  int64_t kernels() const { return channels() * sizes().groups; }
  int64_t border() const { return 2 * sizes().margin(); }
};

// Slots and groups become places to read and write, so none of them may lie outside its channel.
inline void check_contents(const Tensor& shift, const Tensor& identity, const PatternSizes& sizes) {
  const bool good =
      (shift.scalar_type() == at::kInt ? are_shifts<int32_t, uint32_t>
                                       : are_shifts<int64_t, uint64_t>)(shift, sizes) &&
      (identity.scalar_type() == at::kInt ? are_groups<int32_t>
                                          : are_groups<int64_t>)(identity, sizes.groups);
  const int64_t largest = sizes.largest_shift();
  TORCH_CHECK_VALUE(good, "the tables hold no pattern: shifts must be ", largest, ", ",
                    largest - sizes.side, ", ... down to ",
                    largest - int64_t{sizes.groups - 1} * sizes.side,
                    ", identity groups must be of their channel; were they ever filled?");
}

inline Tables read_tables(const Tensor& map, MMSW_TABLES) {
  TORCH_CHECK_VALUE(small_kernel >= 1 && small_kernel % 2 == 1 && small_kernel <= big_kernel &&
                        big_kernel < (int64_t{1} << 30),
                    "small_kernel must be odd and 1 <= small_kernel <= big_kernel < 2**30, got ",
                    small_kernel, " and ", big_kernel);
  for (const Tensor* table : {&shift_hv, &identity_index}) {
    const char* name = table == &shift_hv ? "shift_hv" : "identity_index";
    TORCH_CHECK_TYPE(table->scalar_type() == at::kInt || table->scalar_type() == at::kLong, name,
                     " must hold int32 or int64, got ", table->scalar_type());
    check_device(*table, name, map);
  }
  TORCH_CHECK_VALUE(shift_hv.dim() == 2 && identity_index.dim() == 2 &&
                        identity_index.size(0) >= 1 && identity_index.size(1) >= 1,
                    "shift_hv must be [C * nk, 2 * R] and identity_index [C, R], got ",
                    shift_hv.sizes(), " and ", identity_index.sizes());
  const int64_t groups = (big_kernel + small_kernel - 1) / small_kernel;
  const int64_t channels = identity_index.size(0), reps = identity_index.size(1);
  TORCH_CHECK_VALUE(shift_hv.size(0) == channels * groups && shift_hv.size(1) == 2 * reps,
                    "shift_hv must be ", IntArrayRef({channels * groups, 2 * reps}),
                    " for identity_index ", identity_index.sizes(), " and ", groups,
                    " groups per channel, got ", shift_hv.sizes());
  const PatternSizes sizes{static_cast<int>(big_kernel), static_cast<int>(small_kernel),
                           static_cast<int>(groups), static_cast<int>(reps)};
  Tables tables{shift_hv.contiguous(), identity_index.contiguous(), {}};
  if (map.is_cpu()) check_contents(tables.shift, tables.identity, sizes);
  tables.shift = tables.shift.to(at::kInt);
  tables.identity = tables.identity.to(at::kLong);
  tables.pattern = {sizes, static_cast<int>(channels), tables.shift.const_data_ptr<int32_t>(),
                    tables.identity.const_data_ptr<int64_t>()};
  return tables;
}

inline void check_weight(const Tensor& weight, const Tensor& map, const Tables& tables) {
  const int64_t side = tables.sizes().side;
  check_fits(weight, "weight", map, {tables.kernels(), 1, side, side});
}

inline OptionalTensor ready_mask(const OptionalTensor& mask, const Tensor& map,
                                 const Tables& tables) {
  if (!mask.has_value()) return mask;
  TORCH_CHECK_TYPE(mask->scalar_type() == at::kBool, "mask must hold bool, got ",
                   mask->scalar_type());
  TORCH_CHECK_VALUE(mask->sizes() == IntArrayRef({tables.kernels()}), "mask must be [",
                    tables.kernels(), "], one value per small kernel, got ", mask->sizes());
  check_device(*mask, "mask", map);
  return mask->contiguous();
}

// Gradients of the three outputs, checked against the map that they are of.
inline Outputs ready_grads(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                           const Tensor& map) {
  check_fits(grad_h, "grad_h", map, map.sizes());
  check_fits(grad_v, "grad_v", map, map.sizes());
  check_fits(grad_i, "grad_i", map, map.sizes());
  return {grad_h.contiguous(), grad_v.contiguous(), grad_i.contiguous()};
}

}  // namespace mmsw
