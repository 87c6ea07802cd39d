// Depthwise convolution with a kernel of any size, and its gradients, on the CPU.
//
// mmsw/ops/depthwise_library.py brings schemas and derivatives; what comes from there is checked
// once more here, before it is read by address.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "../checks.h"
#include "depthwise_kernel.h"
#include "dispatch.h"
#include "new_map.h"
#include "parallel.h"

namespace mmsw {
namespace {

template <typename S>
struct Scratch {
  using T = Computed<S>;

  Scratch(int64_t samples, const MapSizes& maps, const KernelSizes& sizes, int64_t taps)
      : frame(samples, maps.height, maps.width, 0, sizes.reach(maps.width)),
        out(maps, frame),
        kernel(sizes, maps, taps) {}

  Frame<T> frame;
  ArmOutput<S> out;
  DepthwiseKernel<S> kernel;
};

template <typename S>
Tensor convolve(const Tensor& x, const Tensor& weight, const Tensor* bias, int64_t taps,
                bool flipped) {
  using T = Computed<S>;
  const MapSizes maps = map_sizes(x);
  const KernelSizes sizes{weight.size(2), weight.size(3), flipped};
  const Tensor result = new_map(x);
  const S* in = x.const_data_ptr<S>();
  const S* weights = weight.const_data_ptr<S>();
  const S* biases = bias == nullptr ? nullptr : bias->const_data_ptr<S>();
  S* out = result.mutable_data_ptr<S>();
  const int64_t samples = samples_side_by_side(maps, sizes.reach(maps.width), vector_lanes<T>());
  const int64_t frames = maps.batch / samples;
  const int64_t grain = maps.area() > 1024 ? 1 : frames;  // small maps share their kernels
  for_each(maps.channels * frames, grain, Scratch<S>(samples, maps, sizes, taps),
           [&](int64_t item, Scratch<S>& own) {
             const int64_t channel = item / frames;
             const int64_t at = maps.at(item % frames * samples, channel);
             own.kernel.use(weights, channel);
             own.frame.copy(in + at, maps.to_next_sample());
             own.out.begin(out + at);
             const T init = biases == nullptr ? T(0) : static_cast<T>(biases[channel]);
             own.kernel.run(own.frame, init, own.out.data(), own.out.stride());
             own.out.store();
           });
  return result;
}

// The gradient of a kernel whose long side runs along the rows of the maps of a frame; of a wide
// one, maps and kernel are transposed.
template <typename S>
class KernelGrad {
 public:
  using T = Computed<S>;

  KernelGrad(const MapSizes& maps, const KernelSizes& sizes)
      : KernelGrad(
            sizes.is_wide() ? MapSizes{maps.batch, maps.channels, maps.width, maps.height} : maps,
            sizes.is_wide() ? KernelSizes{sizes.width, sizes.height, false} : sizes,
            sizes.is_wide()) {}

  int64_t samples() const { return samples_; }

  void begin() { sums_.assign(sizes_.height * columns_ * vector_lanes<T>(), T(0)); }

  // Adds the maps of as many samples as a frame holds.
  void add(const S* map, const S* grad, int64_t to_next) {
    copy(map, to_next, map_);
    copy(grad, to_next, grad_);
    auto plane = map_.plane();
    plane.data += sizes_.first_column() + first_ + columns_ / 2;
    plane_kernels<T>().correlate_grad(plane, grad_.plane(), sizes_.first_row(), sizes_.height,
                                      columns_, sums_.data());
  }

  // Columns that meet no map have no gradient.
  void store(S* out) {
    total_.resize(sizes_.height * columns_);
    plane_kernels<T>().reduce(sums_.data(), static_cast<int64_t>(total_.size()), total_.data());
    weights_.assign(sizes_.count(), T(0));
    for (int64_t tap = 0; tap < sizes_.height; ++tap) {
      for (int64_t n = 0; n < columns_; ++n) {
        const int64_t column = first_ + n;
        weights_[turned_ ? column * sizes_.height + tap : tap * sizes_.width + column] =
            total_[tap * columns_ + n];
      }
    }
    const int64_t count = sizes_.count();
    Stored<S>::narrow(weights_.data(), count, 1, count, out, count);
  }

 private:
  KernelGrad(const MapSizes& maps, const KernelSizes& sizes, bool turned)
      : sizes_(sizes),
        turned_(turned),
        samples_(samples_side_by_side(maps, sizes.reach(maps.width), vector_lanes<T>())),
        first_(std::max<int64_t>(0, 1 - maps.width - sizes.first_column())),
        columns_(std::min(sizes.width, maps.width - sizes.first_column()) - first_),
        map_(samples_, maps.height, maps.width, 0, sizes.reach(maps.width)),
        grad_(map_) {}

  void copy(const S* maps, int64_t to_next, Frame<T>& frame) {
    turned_ ? frame.copy_transposed(maps, to_next) : frame.copy(maps, to_next);
  }

  KernelSizes sizes_;
  bool turned_;
  int64_t samples_, first_, columns_;  // of the kernel's columns, those that meet the map
  Frame<T> map_, grad_;
  std::vector<T> sums_, total_, weights_;
};

template <typename S>
Tensor grad_weight(const Tensor& grad, const Tensor& x, const KernelSizes& sizes) {
  const MapSizes maps = map_sizes(x);
  const Tensor result = at::empty({maps.channels, 1, sizes.height, sizes.width}, x.options());
  const S* in = x.const_data_ptr<S>();
  const S* grads = grad.const_data_ptr<S>();
  S* out = result.mutable_data_ptr<S>();
  for_each(maps.channels, 1, KernelGrad<S>(maps, sizes), [&](int64_t channel, KernelGrad<S>& own) {
    own.begin();
    for (int64_t sample = 0; sample < maps.batch; sample += own.samples()) {
      const int64_t at = maps.at(sample, channel);
      own.add(in + at, grads + at, maps.to_next_sample());
    }
    own.store(out + channel * sizes.count());
  });
  return result;
}

void check_sizes(const Tensor& map, const char* name, int64_t height, int64_t width) {
  check_floating(map, name);
  TORCH_CHECK_VALUE(map.dim() == 4 && map.size(1) >= 1 && map.size(2) >= 1 && map.size(3) >= 1,
                    name, " must be [B, C, H, W] with C, H, W >= 1, got ", map.sizes());
  constexpr int64_t most = int64_t{1} << 30;
  TORCH_CHECK_VALUE(height >= 1 && width >= 1 && height < most && width < most,
                    "a kernel must have sides from 1 to 2**30, got ", height, " x ", width);
}

Tensor depthwise(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, int64_t taps,
                 bool flipped) {
  TORCH_CHECK_VALUE(weight.dim() == 4, "weight must be [C, 1, M1, M2], got ", weight.sizes());
  TORCH_CHECK_VALUE(taps >= 1, "taps must be at least 1, got ", taps);
  check_sizes(x, "x", weight.size(2), weight.size(3));
  check_fits(weight, "weight", x, {x.size(1), 1, weight.size(2), weight.size(3)});
  if (bias.has_value()) check_fits(*bias, "bias", x, {x.size(1)});
  if (x.size(0) == 0) return at::empty(x.sizes(), x.options());
  const Tensor map = x.contiguous(), kernel = weight.contiguous();
  const Tensor added = bias.has_value() ? bias->contiguous() : Tensor();
  const Tensor* given = bias.has_value() ? &added : nullptr;
  return MMSW_DISPATCH(map, convolve, map, kernel, given, taps, flipped);
}

Tensor depthwise_grad_weight(const Tensor& grad, const Tensor& x, int64_t height, int64_t width) {
  check_sizes(x, "x", height, width);
  check_fits(grad, "grad", x, x.sizes());
  if (x.size(0) == 0) return at::zeros({x.size(1), 1, height, width}, x.options());
  const KernelSizes sizes{height, width, false};
  const Tensor grads = grad.contiguous(), map = x.contiguous();
  return MMSW_DISPATCH(map, grad_weight, grads, map, sizes);
}

TORCH_LIBRARY_FRAGMENT(mmsw_cpp, library) {
  library.def("depthwise(Tensor x, Tensor weight, Tensor? bias, int taps, bool flipped) -> Tensor");
  library.def("depthwise_grad_weight(Tensor grad, Tensor x, int height, int width) -> Tensor");
}

TORCH_LIBRARY_IMPL(mmsw_cpp, CPU, library) {
  library.impl("depthwise", &depthwise);
  library.impl("depthwise_grad_weight", &depthwise_grad_weight);
}

// No derivatives here.
TORCH_LIBRARY_IMPL(mmsw_cpp, Autograd, library) {
  for (const char* name : {"depthwise", "depthwise_grad_weight"}) {
    library.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace
}  // namespace mmsw
