// Layer norm over the channels of maps [B, C, P], whose positions lie side by side, on the CPU.
//
// These operators have no derivatives: channel_norm.py puts them together. Work is shared out by
// blocks of positions, whose size follows from the map alone, and the shares of the blocks in a sum
// are added in their order. So results do not depend on the number of threads.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/CPUAllocator.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
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

using MaybeTensor = std::optional<Tensor>;

template <typename S>
const auto& channel_kernels() {
  if constexpr (std::is_same_v<S, c10::Half>) {
    return instruction_set->channel_f16;
  } else if constexpr (std::is_same_v<S, c10::BFloat16>) {
    return instruction_set->channel_bf16;
  } else if constexpr (std::is_same_v<S, double>) {
    return instruction_set->channel_f64;
  } else {
    return instruction_set->channel_f32;
  }
}

// How a map is cut: blocks of neighbouring positions of one sample, whose scratch fits into a
// cache.
struct Blocks {
  int64_t batch, channels, positions, maps, size, per_sample;

  // The scratch of a block holds so many maps in T.
  template <typename T>
  static Blocks of(const Tensor& x, int64_t maps) {
    constexpr int64_t most_bytes = 256 << 10, line = 16;  // positions in a line of the cache
    Blocks blocks{x.size(0), x.size(1), x.size(2), maps, 0, 0};
    const int64_t bytes = maps * blocks.channels * static_cast<int64_t>(sizeof(T));
    const int64_t most = std::max(line, most_bytes / bytes / line * line);
    const int64_t count = ceil_div(blocks.positions, most);
    blocks.size = ceil_div(ceil_div(blocks.positions, count), line) * line;
    blocks.per_sample = ceil_div(blocks.positions, blocks.size);
    return blocks;
  }
  static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
  int64_t count() const { return batch * per_sample; }
  int64_t scratch_values() const { return (4 + maps * channels) * size; }
};

// Where a block is.
struct Place {
  int64_t index, sample, start;
};

// Scratch of a thread, not filled.
struct Scratch {
  explicit Scratch(size_t bytes) : bytes(bytes) {}
  Scratch(const Scratch& like)
      : bytes(like.bytes), memory(c10::GetCPUAllocator()->allocate(like.bytes)) {}

  size_t bytes;
  c10::DataPtr memory;
};

template <typename S>
using Block = ChannelBlock<Computed<S>, Raw<S>>;

template <typename S>
const Raw<S>* values_at(const Tensor& map, const Place& place) {
  return reinterpret_cast<const Raw<S>*>(map.const_data_ptr<S>()) + place.sample * map.stride(0) +
         place.start;
}

// Calls work(block, place) for every block, with all that both directions need filled in.
template <typename S, typename Work>
void for_each_block(const Blocks& blocks, const Tensor& x, const Tensor& weight, const Tensor& out,
                    Work work) {
  using T = Computed<S>;
  const T* weights = weight.const_data_ptr<T>();
  Raw<S>* to = reinterpret_cast<Raw<S>*>(out.mutable_data_ptr<S>());
  const auto run = [&](int64_t index, const Scratch& scratch) {
    const Place place{index, index / blocks.per_sample, index % blocks.per_sample * blocks.size};
    Block<S> block{};
    block.channels = blocks.channels;
    block.positions = std::min(blocks.size, blocks.positions - place.start);
    block.width = blocks.size;
    block.in = values_at<S>(x, place);
    block.in_stride = x.stride(1);
    block.out = to + place.sample * out.stride(0) + place.start;
    block.out_stride = out.stride(1);
    block.weight = weights;
    T* at = static_cast<T*>(scratch.memory.get());
    for (T** row : {&block.mean, &block.rstd, &block.first, &block.second}) {
      *row = at;
      at += blocks.size;
    }
    block.values = at;
    block.grads = at + (blocks.maps - 1) * blocks.channels * blocks.size;
    work(block, place);
  };
  for_each(blocks.count(), 1, Scratch(blocks.scratch_values() * sizeof(T)), run);
}

// `mean` and `rstd` may be undefined.
template <typename S>
void run_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps,
              const Tensor& out, const Tensor& mean, const Tensor& rstd) {
  using T = Computed<S>;
  const T* biases = bias.const_data_ptr<T>();
  T* means = mean.defined() ? mean.mutable_data_ptr<T>() : nullptr;
  T* rstds = rstd.defined() ? rstd.mutable_data_ptr<T>() : nullptr;
  const Blocks blocks = Blocks::of<T>(x, 1);
  for_each_block<S>(blocks, x, weight, out, [&](Block<S>& block, const Place& place) {
    block.bias = biases;
    block.eps = static_cast<T>(eps);
    channel_kernels<S>().channel_norm(block);
    const int64_t at = place.sample * blocks.positions + place.start;
    if (means != nullptr) std::copy_n(block.mean, block.positions, means + at);
    if (rstds != nullptr) std::copy_n(block.rstd, block.positions, rstds + at);
  });
}

// Adds up the shares of the blocks, [blocks][2][C].
template <typename T>
void add_shares(const std::vector<T>& shares, const Tensor& grad_weight, const Tensor& grad_bias) {
  const size_t channels = grad_weight.numel();
  std::vector<double> sums(2 * channels);
  for (size_t at = 0; at < shares.size(); at += sums.size()) {
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += shares[at + i];
  }
  std::copy_n(sums.data(), channels, grad_weight.mutable_data_ptr<T>());
  std::copy_n(sums.data() + channels, channels, grad_bias.mutable_data_ptr<T>());
}

template <typename S>
void run_norm_grad(const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& mean,
                   const Tensor& rstd, const Tensor& grad_x, const Tensor& grad_weight,
                   const Tensor& grad_bias) {
  using T = Computed<S>;
  const T *means = mean.const_data_ptr<T>(), *rstds = rstd.const_data_ptr<T>();
  const Blocks blocks = Blocks::of<T>(x, 2);
  std::vector<T> shares(blocks.count() * 2 * blocks.channels);
  for_each_block<S>(blocks, x, weight, grad_x, [&](Block<S>& block, const Place& place) {
    const int64_t at = place.sample * blocks.positions + place.start;
    std::fill_n(block.mean, block.width, T(0));
    std::fill_n(block.rstd, block.width, T(0));
    std::copy_n(means + at, block.positions, block.mean);
    std::copy_n(rstds + at, block.positions, block.rstd);
    block.grad = values_at<S>(grad, place);
    block.grad_stride = grad.stride(1);
    block.sums = shares.data() + place.index * 2 * blocks.channels;
    channel_kernels<S>().channel_norm_grad(block);
  });
  add_shares(shares, grad_weight, grad_bias);
}

void check_positions(const Tensor& map, const char* name) {
  check_floating(map, name);
  TORCH_CHECK_VALUE(map.dim() == 3 && (map.size(2) < 2 || map.stride(2) == 1), name,
                    " must be [B, C, P] with the positions side by side, got ", map.sizes(),
                    " with strides ", map.strides());
}

// What goes with a map is contiguous and of the type that is computed in.
at::TensorOptions computed_options(const Tensor& x) {
  return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

void check_with(const Tensor& tensor, const char* name, const Tensor& x, IntArrayRef sizes) {
  const auto dtype = c10::typeMetaToScalarType(computed_options(x).dtype());
  check_device(tensor, name, x);
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, name, " must hold ", dtype, ", got ",
                   tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.sizes() == sizes && tensor.is_contiguous(), name, " must be ", sizes,
                    " and contiguous, got ", tensor.sizes(), " with strides ", tensor.strides());
}

// `given`, checked, or as many times `value` as there are channels.
Tensor of_channels(const MaybeTensor& given, const char* name, const Tensor& x, double value) {
  if (!given.has_value()) return at::full({x.size(1)}, value, computed_options(x));
  check_with(*given, name, x, {x.size(1)});
  return *given;
}

void norm_to(const Tensor& out, const Tensor& x, const MaybeTensor& weight, const MaybeTensor& bias,
             double eps, const Tensor& mean, const Tensor& rstd) {
  const Tensor weights = of_channels(weight, "weight", x, 1),
               biases = of_channels(bias, "bias", x, 0);
  if (x.numel() > 0) MMSW_DISPATCH(x, run_norm, x, weights, biases, eps, out, mean, rstd);
}

// Returns the norm, and means and reciprocal deviations [B, P].
std::tuple<Tensor, Tensor, Tensor> channel_norm(const Tensor& x, const MaybeTensor& weight,
                                                const MaybeTensor& bias, double eps) {
  check_positions(x, "x");
  const Tensor out = new_map(x);
  const Tensor mean = at::empty({x.size(0), x.size(2)}, computed_options(x)),
               rstd = at::empty({x.size(0), x.size(2)}, computed_options(x));
  norm_to(out, x, weight, bias, eps, mean, rstd);
  return {out, mean, rstd};
}

void channel_norm_in_place(Tensor& x, const MaybeTensor& weight, const MaybeTensor& bias,
                           double eps) {
  check_positions(x, "x");
  TORCH_CHECK_VALUE(x.is_contiguous(), "x must be contiguous, got strides ", x.strides());
  norm_to(x, x, weight, bias, eps, {}, {});
  if (!x.is_inference()) x.unsafeGetTensorImpl()->bump_version();  // autograd asks for it
}

// Returns the gradients of the map, of the weight and of the bias.
std::tuple<Tensor, Tensor, Tensor> channel_norm_grad(const Tensor& grad, const Tensor& x,
                                                     const MaybeTensor& weight, const Tensor& mean,
                                                     const Tensor& rstd) {
  check_positions(x, "x");
  check_fits(grad, "grad", x, x.sizes());
  check_positions(grad, "grad");
  check_with(mean, "mean", x, {x.size(0), x.size(2)});
  check_with(rstd, "rstd", x, {x.size(0), x.size(2)});
  const Tensor weights = of_channels(weight, "weight", x, 1), grad_x = new_map(x);
  const Tensor grad_weight = at::zeros_like(weights), grad_bias = at::zeros_like(weights);
  if (x.numel() > 0) {
    MMSW_DISPATCH(x, run_norm_grad, grad, x, weights, mean, rstd, grad_x, grad_weight, grad_bias);
  }
  return {grad_x, grad_weight, grad_bias};
}

// What compilers need to know.
Tensor shape_of_map(const Tensor& x) { return at::empty_symint(x.sym_sizes(), x.options()); }

std::tuple<Tensor, Tensor, Tensor> channel_norm_shape(const Tensor& x, const MaybeTensor&,
                                                      const MaybeTensor&, double) {
  const c10::SymDimVector sizes{x.sym_size(0), x.sym_size(2)};
  return {shape_of_map(x), at::empty_symint(sizes, computed_options(x)),
          at::empty_symint(sizes, computed_options(x))};
}

void channel_norm_in_place_shape(Tensor&, const MaybeTensor&, const MaybeTensor&, double) {}

std::tuple<Tensor, Tensor, Tensor> channel_norm_grad_shape(const Tensor&, const Tensor& x,
                                                           const MaybeTensor&, const Tensor&,
                                                           const Tensor&) {
  return {shape_of_map(x), at::empty_symint({x.sym_size(1)}, computed_options(x)),
          at::empty_symint({x.sym_size(1)}, computed_options(x))};
}

TORCH_LIBRARY_FRAGMENT(mmsw_cpp, library) {
  const auto def = [&](const char* schema) {
    library.def(torch::schema(schema), {at::Tag::pt2_compliant_tag});
  };
  def("channel_norm(Tensor x, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, "
      "Tensor)");
  def("channel_norm_(Tensor(a!) x, Tensor? weight, Tensor? bias, float eps) -> ()");
  def("channel_norm_grad(Tensor grad, Tensor x, Tensor? weight, Tensor mean, Tensor rstd) -> "
      "(Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(mmsw_cpp, CPU, library) {
  library.impl("channel_norm", &channel_norm);
  library.impl("channel_norm_", &channel_norm_in_place);
  library.impl("channel_norm_grad", &channel_norm_grad);
}

TORCH_LIBRARY_IMPL(mmsw_cpp, Meta, library) {
  library.impl("channel_norm", &channel_norm_shape);
  library.impl("channel_norm_", &channel_norm_in_place_shape);
  library.impl("channel_norm_grad", &channel_norm_grad_shape);
}

// No derivatives.
TORCH_LIBRARY_IMPL(mmsw_cpp, Autograd, library) {
  for (const char* name : {"channel_norm", "channel_norm_", "channel_norm_grad"}) {
    library.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace
}  // namespace mmsw
