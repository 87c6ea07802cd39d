// Sums over the rows of several maps, and maps that are sums of them, on the CPU.
//
// A map is [B, C, P] with any strides of samples and channels; a row is one channel of one sample.
// The first map has the most channels. A later one with fewer counts as nothing beyond them.
// The operators have no derivatives: rows.py has a gradient of its own.
// Work is shared out by rows, so results do not depend on the number of threads.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../checks.h"
#include "dispatch.h"
#include "instruction_sets.h"
#include "new_map.h"
#include "parallel.h"

namespace mmsw {
namespace {

using at::TensorList;

template <typename S>
const auto& row_kernels() {
  if constexpr (std::is_same_v<S, c10::Half>) {
    return instruction_set->rows_f16;
  } else if constexpr (std::is_same_v<S, c10::BFloat16>) {
    return instruction_set->rows_bf16;
  } else if constexpr (std::is_same_v<S, double>) {
    return instruction_set->rows_f64;
  } else {
    return instruction_set->rows_f32;
  }
}

// Where the rows of a map begin. A value is what kernels take: S, or its bits.
template <typename Value>
struct Rows {
  Value* data;
  int64_t batch_stride, channel_stride, channels;
};

template <typename S, typename T, typename Bits>
std::vector<Rows<const Bits>> rows_of(TensorList maps, const RowKernels<T, Bits>&) {
  std::vector<Rows<const Bits>> rows;
  for (const Tensor& map : maps) {
    rows.push_back({reinterpret_cast<const Bits*>(map.const_data_ptr<S>()), map.stride(0),
                    map.stride(1), map.size(1)});
  }
  return rows;
}

template <typename S, typename T, typename Bits>
std::vector<Rows<Bits>> new_rows_of(TensorList maps, const RowKernels<T, Bits>&) {
  std::vector<Rows<Bits>> rows;
  for (const Tensor& map : maps) {
    rows.push_back({reinterpret_cast<Bits*>(map.mutable_data_ptr<S>()), map.stride(0),
                    map.stride(1), map.size(1)});
  }
  return rows;
}

// The same row of those maps that have it, and which ones they are.
template <typename Value>
struct SameRow {
  Value* rows[kMostMaps];
  int64_t map[kMostMaps], count = 0;

  SameRow(const std::vector<Rows<Value>>& maps, int64_t sample, int64_t channel) {
    for (size_t i = 0; i < maps.size(); ++i) {
      if (channel >= maps[i].channels) continue;
      rows[count] = maps[i].data + sample * maps[i].batch_stride + channel * maps[i].channel_stride;
      map[count++] = static_cast<int64_t>(i);
    }
  }
};

template <typename S>
void run_row_moments(TensorList maps, const Tensor& mean, const Tensor& covariance) {
  const auto& kernels = row_kernels<S>();
  const auto in = rows_of<S>(maps, kernels);
  const int64_t n = maps.size(), channels = maps[0].size(1), positions = maps[0].size(2),
                rows = maps[0].size(0) * channels;
  auto *means = mean.mutable_data_ptr<double>(), *pairs = covariance.mutable_data_ptr<double>();
  for_each_row(maps[0], [&](int64_t row) {
    const SameRow same(in, row / channels, row % channels);
    double own_means[kMostMaps], own_pairs[kMostMaps * kMostMaps];
    kernels.moments(same.rows, same.count, positions, own_means, own_pairs);
    for (int64_t i = 0; i < same.count; ++i) {
      means[same.map[i] * rows + row] = own_means[i];
      for (int64_t k = 0; k < same.count; ++k) {
        pairs[(same.map[i] * n + same.map[k]) * rows + row] = own_pairs[i * same.count + k];
      }
    }
  });
}

template <typename S>
void run_row_products(const Tensor& grad, TensorList maps, const Tensor& mean, const Tensor& sums) {
  const auto& kernels = row_kernels<S>();
  const auto in = rows_of<S>(maps, kernels), grads = rows_of<S>(grad, kernels);
  const int64_t n = maps.size(), channels = grad.size(1), positions = grad.size(2),
                rows = grad.size(0) * channels;
  const auto* means = mean.const_data_ptr<double>();
  auto* to = sums.mutable_data_ptr<double>();
  for_each_row(grad, [&](int64_t row) {
    const SameRow same(in, row / channels, row % channels),
        same_grad(grads, row / channels, row % channels);
    double own_means[kMostMaps], own_sums[kMostMaps + 1];
    for (int64_t i = 0; i < same.count; ++i) own_means[i] = means[same.map[i] * rows + row];
    kernels.products(same_grad.rows[0], same.rows, same.count, positions, own_means, own_sums);
    for (int64_t i = 0; i < same.count; ++i) to[same.map[i] * rows + row] = own_sums[i];
    to[n * rows + row] = own_sums[same.count];
  });
}

template <typename S>
void run_row_sums(TensorList maps, const Tensor& mean, const Tensor& factors, TensorList outs) {
  using T = Computed<S>;
  const auto& kernels = row_kernels<S>();
  const auto in = rows_of<S>(maps, kernels);
  const auto out = new_rows_of<S>(outs, kernels);
  const int64_t n = maps.size(), channels = maps[0].size(1), positions = maps[0].size(2),
                rows = maps[0].size(0) * channels;
  const auto *means = mean.const_data_ptr<double>(), *from = factors.const_data_ptr<double>();
  for_each_row(maps[0], [&](int64_t row) {
    const SameRow same(in, row / channels, row % channels);
    const SameRow to(out, row / channels, row % channels);
    T pivots[kMostMaps], own[kMostMaps * (kMostMaps + 1)], *next = own;
    double rounding[kMostMaps];  // of a pivot
    for (int64_t i = 0; i < same.count; ++i) {
      const double centre = means[same.map[i] * rows + row];
      pivots[i] = static_cast<T>(centre);
      rounding[i] = pivots[i] - centre;
    }
    for (int64_t j = 0; j < to.count; ++j) {
      const double* factor = from + to.map[j] * (n + 1) * rows + row;
      double number = factor[n * rows];
      for (int64_t i = 0; i < same.count; ++i) {
        const double scale = factor[same.map[i] * rows];
        number += scale * rounding[i];
        *next++ = static_cast<T>(scale);
      }
      *next++ = static_cast<T>(number);
    }
    kernels.sums(same.rows, same.count, positions, pivots, own, to.rows, to.count);
  });
}

void check_some(TensorList maps) {
  TORCH_CHECK_VALUE(!maps.empty() && maps.size() <= kMostMaps, "maps must be 1 to ", kMostMaps,
                    ", got ", maps.size());
}

void check_maps(TensorList maps) {
  check_some(maps);
  for (size_t i = 0; i < maps.size(); ++i) {
    const Tensor &map = maps[i], &first = maps[0];
    const std::string name = "maps[" + std::to_string(i) + "]";
    check_floating(map, name.c_str());
    TORCH_CHECK_VALUE(
        map.dim() == 3 && map.size(2) >= 1 && (map.stride(2) == 1 || map.size(2) == 1), name,
        " must be [B, C, P] with P >= 1 and contiguous positions, got ", map.sizes(),
        " with strides ", map.strides());
    TORCH_CHECK_VALUE(map.size(0) == first.size(0) && map.size(1) <= first.size(1) &&
                          map.size(2) == first.size(2),
                      name, " must have the samples and positions of maps[0], ", first.sizes(),
                      ", and no more channels, got ", map.sizes());
    check_fits(map, name.c_str(), first, map.sizes());
  }
}

// What goes with maps: it may have any strides.
Tensor ready_numbers(const Tensor& numbers, const char* name, TensorList maps, int64_t of_each) {
  const int64_t n = maps.size();
  std::vector<int64_t> sizes{n, maps[0].size(0), maps[0].size(1)};
  if (of_each > 0) sizes = {of_each, n + 1, maps[0].size(0), maps[0].size(1)};
  TORCH_CHECK_TYPE(numbers.scalar_type() == at::kDouble, name, " must hold float64, got ",
                   numbers.scalar_type());
  TORCH_CHECK_VALUE(numbers.sizes() == IntArrayRef(sizes), name, " must be ", IntArrayRef(sizes),
                    ", got ", numbers.sizes());
  check_device(numbers, name, maps[0]);
  return numbers.contiguous();
}

// Sums of rows, [..., B, C], zero at first.
Tensor zero_sums(const Tensor& map, std::vector<int64_t> sizes) {
  sizes.insert(sizes.end(), {map.size(0), map.size(1)});
  return at::zeros(sizes, map.options().dtype(at::kDouble));
}

std::tuple<Tensor, Tensor> row_moments(TensorList maps) {
  check_maps(maps);
  const int64_t n = maps.size();
  const Tensor mean = zero_sums(maps[0], {n}), covariance = zero_sums(maps[0], {n, n});
  if (maps[0].numel() > 0) MMSW_DISPATCH(maps[0], run_row_moments, maps, mean, covariance);
  return {mean, covariance};
}

Tensor row_products(const Tensor& grad, TensorList maps, const Tensor& mean) {
  check_maps(maps);
  check_fits(grad, "grad", maps[0], maps[0].sizes());
  TORCH_CHECK_VALUE(grad.stride(2) == 1 || grad.size(2) == 1,
                    "grad must have contiguous positions, got strides ", grad.strides());
  const Tensor means = ready_numbers(mean, "mean", maps, 0);
  const Tensor sums = zero_sums(grad, {static_cast<int64_t>(maps.size()) + 1});
  if (grad.numel() > 0) MMSW_DISPATCH(grad, run_row_products, grad, maps, means, sums);
  return sums;
}

std::vector<Tensor> row_sums(TensorList maps, const Tensor& mean, const Tensor& factors,
                             IntArrayRef channels) {
  check_maps(maps);
  const int64_t batch = maps[0].size(0), most = maps[0].size(1), positions = maps[0].size(2),
                count = channels.size();
  TORCH_CHECK_VALUE(count >= 1 && count <= kMostMaps, "channels must name 1 to ", kMostMaps,
                    " maps, got ", count);
  for (const int64_t of_map : channels) {
    TORCH_CHECK_VALUE(of_map >= 0 && of_map <= most, "channels must be from 0 to ", most, ", got ",
                      channels);
  }
  const Tensor means = ready_numbers(mean, "mean", maps, 0),
               own = ready_numbers(factors, "factors", maps, count);
  std::vector<Tensor> outs;
  for (const int64_t of_map : channels) {
    outs.push_back(new_map({batch, of_map, positions}, maps[0].options()));
  }
  if (maps[0].numel() > 0) MMSW_DISPATCH(maps[0], run_row_sums, maps, means, own, outs);
  return outs;
}

// What compilers need to know.
Tensor shape_of_sums(const Tensor& map, std::vector<c10::SymInt> sizes) {
  sizes.insert(sizes.end(), {map.sym_size(0), map.sym_size(1)});
  return at::empty_symint(sizes, map.options().dtype(at::kDouble));
}

std::tuple<Tensor, Tensor> row_moments_shape(TensorList maps) {
  check_some(maps);
  const c10::SymInt n(static_cast<int64_t>(maps.size()));
  return {shape_of_sums(maps[0], {n}), shape_of_sums(maps[0], {n, n})};
}

Tensor row_products_shape(const Tensor& grad, TensorList maps, const Tensor&) {
  return shape_of_sums(grad, {c10::SymInt(static_cast<int64_t>(maps.size()) + 1)});
}

std::vector<Tensor> row_sums_shape(TensorList maps, const Tensor&, const Tensor&,
                                   IntArrayRef channels) {
  check_some(maps);
  std::vector<Tensor> outs;
  for (const int64_t of_map : channels) {
    outs.push_back(
        at::empty_symint({maps[0].sym_size(0), of_map, maps[0].sym_size(2)}, maps[0].options()));
  }
  return outs;
}

TORCH_LIBRARY_FRAGMENT(mmsw_cpp, library) {
  const auto def = [&](const char* schema) {
    library.def(torch::schema(schema), {at::Tag::pt2_compliant_tag});
  };
  def("row_moments(Tensor[] maps) -> (Tensor mean, Tensor covariance)");
  def("row_products(Tensor grad, Tensor[] maps, Tensor mean) -> Tensor");
  def("row_sums(Tensor[] maps, Tensor mean, Tensor factors, int[] channels) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(mmsw_cpp, CPU, library) {
  library.impl("row_moments", &row_moments);
  library.impl("row_products", &row_products);
  library.impl("row_sums", &row_sums);
}

TORCH_LIBRARY_IMPL(mmsw_cpp, Meta, library) {
  library.impl("row_moments", &row_moments_shape);
  library.impl("row_products", &row_products_shape);
  library.impl("row_sums", &row_sums_shape);
}

// No derivatives.
TORCH_LIBRARY_IMPL(mmsw_cpp, Autograd, library) {
  for (const char* name : {"row_moments", "row_products", "row_sums"}) {
    library.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace
}  // namespace mmsw
