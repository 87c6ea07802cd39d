// The CPU operators as PyTorch sees them. Work is shared out by planes, one (sample, channel) or
// one channel at a time, so results do not depend on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "../backend.h"
#include "cross_kernels.h"
#include "kernels.h"

namespace mmsw {
namespace {

const InstructionSet* find_instruction_set(const std::string& name) {
#if defined(__x86_64__)
  const bool best = name == "best";
  if ((best || name == "avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    return &avx512_kernels();
  }
  if ((best || name == "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return &avx2_kernels();
  }
#endif
  return name == "best" || name == "baseline" ? &baseline_kernels() : nullptr;
}

const InstructionSet* instruction_set = find_instruction_set("best");

template <typename T>
const PlaneKernels<T>& kernels();
template <>
const PlaneKernels<float>& kernels() {
  return instruction_set->f32;
}
template <>
const PlaneKernels<double>& kernels() {
  return instruction_set->f64;
}

// Runs work(item, scratch) for every item; threads take the next item as they get free.
template <typename Scratch, typename Work>
void for_each(int64_t items, const Scratch& scratch, Work work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), items);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    Scratch own(scratch);
    for (int64_t thread = begin; thread < end; ++thread) {
      for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
        work(item, own);
      }
    }
  });
}

// A map in a frame of zeros. Only the map is ever written, so the frame stays zero.
template <typename T>
class Frame {
 public:
  Frame(int64_t height, int64_t width, int64_t side)
      : height_(height), width_(width), left_(frame_left(side)) {
    const int64_t line = 64 / sizeof(T);
    int64_t lines = (left_ + width + frame_right(side) + line - 1) / line;
    lines += 1 - lines % 2;  // an odd number of cache lines spreads the rows over the cache's sets
    stride_ = lines * line;
    rows_ = frame_rows(side);
    memory_.assign((height + 2 * rows_) * stride_ + line, T(0));
  }

  void copy(const T* map) {
    for (int64_t y = 0; y < height_; ++y) {
      std::copy(map + y * width_, map + (y + 1) * width_, origin() + y * stride_);
    }
  }

  // Takes the transpose of a map of `width_ x height_`.
  void copy_transposed(const T* map) {
    kernels<T>().transpose(map, height_, width_, height_, origin(), stride_);
  }

  Plane<const T> plane() { return {origin(), stride_, height_, width_}; }

 private:
  T* origin() {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    const int64_t skip = (64 - address % 64) % 64 / sizeof(T);
    return memory_.data() + skip + rows_ * stride_ + left_;
  }

  int64_t height_, width_, left_, stride_, rows_;
  std::vector<T> memory_;
};

template <typename T>
struct ConvScratch {
  ConvScratch(const Pattern& pattern, int64_t height, int64_t width)
      : kernel(pattern),
        upright(height, width, pattern.sizes.side),
        turned(width, height, pattern.sizes.side),
        turned_out(height * width) {}

  CrossKernel<T> kernel;
  BlockList<T> wide, tall, small;
  Frame<T> upright, turned;
  std::vector<T> turned_out;
  int64_t channel = -1;  // that `kernel` and the lists are of

  void use(const Pattern& pattern, const T* weight, int64_t next, bool flip) {
    if (channel == next) return;
    channel = next;
    const PatternSizes& sizes = pattern.sizes;
    assemble(pattern, channel, weight + channel * kernel.wide.size(), kernel);
    const int64_t taps = sizes.arm_taps(), first = sizes.first(false), side = sizes.side;
    wide.fill(kernel.wide.data(), taps, side, first, flip);
    tall.fill(kernel.tall.data(), taps, side, first, flip);
    small.fill(kernel.small.data(), side, side, -(side / 2), flip);
  }
};

template <typename T>
Outputs forward(const Tensor& x, const Tensor& weight, const Pattern& pattern) {
  const int64_t channels = x.size(1), height = x.size(2), width = x.size(3), area = height * width;
  const Outputs out{at::empty(x.sizes(), x.options()), at::empty(x.sizes(), x.options()),
                    at::empty(x.sizes(), x.options())};
  const T* in = x.const_data_ptr<T>();
  const T* weights = weight.const_data_ptr<T>();
  T* h = std::get<0>(out).mutable_data_ptr<T>();
  T* v = std::get<1>(out).mutable_data_ptr<T>();
  T* i = std::get<2>(out).mutable_data_ptr<T>();
  const auto& run = kernels<T>();
  const int64_t batch = x.size(0), side = pattern.sizes.side;
  for_each(batch * channels, ConvScratch<T>(pattern, height, width),
           [&](int64_t item, ConvScratch<T>& own) {
             const int64_t channel = item / batch, at = (item % batch * channels + channel) * area;
             own.use(pattern, weights, channel, false);
             own.upright.copy(in + at);
             run.correlate(own.upright.plane(), own.tall.data(), own.tall.size(), side, T(0), false,
                           v + at, width);
             run.correlate(own.upright.plane(), own.small.data(), own.small.size(), side, T(0),
                           false, i + at, width);
             own.turned.copy_transposed(in + at);
             run.correlate(own.turned.plane(), own.wide.data(), own.wide.size(), side, T(0), false,
                           own.turned_out.data(), height);
             run.transpose(own.turned_out.data(), height, width, height, h + at, width);
           });
  return out;
}

template <typename T>
Tensor grad_input(const Outputs& grads, const Tensor& weight, const Pattern& pattern) {
  const auto& [grad_h, grad_v, grad_i] = grads;
  const int64_t channels = grad_h.size(1), height = grad_h.size(2), width = grad_h.size(3);
  const int64_t batch = grad_h.size(0), side = pattern.sizes.side, area = height * width;
  const Tensor grad = at::empty(grad_h.sizes(), grad_h.options());
  const T* h = grad_h.const_data_ptr<T>();
  const T* v = grad_v.const_data_ptr<T>();
  const T* i = grad_i.const_data_ptr<T>();
  const T* weights = weight.const_data_ptr<T>();
  T* out = grad.mutable_data_ptr<T>();
  const auto& run = kernels<T>();
  for_each(batch * channels, ConvScratch<T>(pattern, height, width),
           [&](int64_t item, ConvScratch<T>& own) {
             const int64_t channel = item / batch, at = (item % batch * channels + channel) * area;
             own.use(pattern, weights, channel, true);
             own.turned.copy_transposed(h + at);
             run.correlate(own.turned.plane(), own.wide.data(), own.wide.size(), side, T(0), false,
                           own.turned_out.data(), height);
             run.transpose(own.turned_out.data(), height, width, height, out + at, width);
             own.upright.copy(v + at);
             run.correlate(own.upright.plane(), own.tall.data(), own.tall.size(), side, T(0), true,
                           out + at, width);
             own.upright.copy(i + at);
             run.correlate(own.upright.plane(), own.small.data(), own.small.size(), side, T(0),
                           true, out + at, width);
           });
  return grad;
}

template <typename T>
struct GradScratch {
  GradScratch(const Pattern& pattern, int64_t height, int64_t width)
      : kernel(pattern),
        map(height, width, pattern.sizes.side),
        grad(height, width, pattern.sizes.side),
        turned_map(width, height, pattern.sizes.side),
        turned_grad(width, height, pattern.sizes.side) {}

  CrossKernel<T> kernel;
  Frame<T> map, grad, turned_map, turned_grad;
};

template <typename T>
Tensor grad_weight(const Outputs& grads, const Tensor& x, const Pattern& pattern) {
  const auto& [grad_h, grad_v, grad_i] = grads;
  const int64_t channels = x.size(1), height = x.size(2), width = x.size(3), area = height * width;
  const int64_t batch = x.size(0), side = pattern.sizes.side, taps = pattern.sizes.arm_taps();
  const Tensor grad = at::zeros({channels * pattern.sizes.groups, 1, side, side}, x.options());
  const T* in = x.const_data_ptr<T>();
  const T* h = grad_h.const_data_ptr<T>();
  const T* v = grad_v.const_data_ptr<T>();
  const T* i = grad_i.const_data_ptr<T>();
  T* out = grad.mutable_data_ptr<T>();
  const auto& run = kernels<T>();
  for_each(channels, GradScratch<T>(pattern, height, width),
           [&](int64_t channel, GradScratch<T>& own) {
             own.kernel.clear();
             const int64_t first = pattern.sizes.first(false);
             for (int64_t sample = 0; sample < batch; ++sample) {
               const int64_t at = (sample * channels + channel) * area;
               own.map.copy(in + at);
               own.grad.copy(v + at);
               run.correlate_grad(own.map.plane(), own.grad.plane(), first, taps, side,
                                  own.kernel.tall.data());
               own.grad.copy(i + at);
               run.correlate_grad(own.map.plane(), own.grad.plane(), -(side / 2), side, side,
                                  own.kernel.small.data());
               own.turned_map.copy_transposed(in + at);
               own.turned_grad.copy_transposed(h + at);
               run.correlate_grad(own.turned_map.plane(), own.turned_grad.plane(), first, taps,
                                  side, own.kernel.wide.data());
             }
             disassemble(pattern, channel, own.kernel, out + channel * own.kernel.wide.size());
           });
  return grad;
}

template <typename T>
struct CrossScratch {
  CrossScratch(int64_t height, int64_t width, int64_t side)
      : upright(height, width, side), turned(width, height, side), turned_out(height * width) {}

  BlockList<T> wide, tall;
  Frame<T> upright, turned;
  std::vector<T> turned_out;
  int64_t channel = -1;
};

template <typename T>
Tensor cross(const Tensor& x, const Tensor& wide, const Tensor& tall,
             const std::optional<Tensor>& bias) {
  const int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const int64_t side = wide.size(2), area = height * width;
  const Tensor result = at::empty(x.sizes(), x.options());
  const T* in = x.const_data_ptr<T>();
  const T* wides = wide.const_data_ptr<T>();
  const T* talls = tall.const_data_ptr<T>();
  const T* biases = bias ? bias->const_data_ptr<T>() : nullptr;
  T* out = result.mutable_data_ptr<T>();
  const auto& run = kernels<T>();
  const int64_t wide_taps = wide.size(1), tall_taps = tall.size(1);
  for_each(batch * channels, CrossScratch<T>(height, width, side),
           [&](int64_t item, CrossScratch<T>& own) {
             const int64_t channel = item / batch, at = (item % batch * channels + channel) * area;
             if (own.channel != channel) {
               own.channel = channel;
               own.wide.fill(wides + channel * wide_taps * side, wide_taps, side, -(wide_taps / 2),
                             false);
               own.tall.fill(talls + channel * tall_taps * side, tall_taps, side, -(tall_taps / 2),
                             false);
             }
             own.turned.copy_transposed(in + at);
             run.correlate(own.turned.plane(), own.wide.data(), own.wide.size(), side,
                           biases != nullptr ? biases[channel] : T(0), false, own.turned_out.data(), height);
             run.transpose(own.turned_out.data(), height, width, height, out + at, width);
             own.upright.copy(in + at);
             run.correlate(own.upright.plane(), own.tall.data(), own.tall.size(), side, T(0), true,
                           out + at, width);
           });
  return result;
}

// First and one past the last position of an output whose shifted read stays inside the input.
struct Overlap {
  int64_t first, last;

  Overlap(int64_t length, int64_t margin, int64_t shift)
      : first(std::min(std::max<int64_t>(0, shift), length)),
        last(std::max(first, std::min(length, length + 2 * margin + shift))) {}
};

// Calls visit(contribution row, output row, count) for every row of an output that a group
// contributes to; the shift-add adds along it, its gradient adds the other way.
template <typename Visit>
void visit_rows(const Pattern& pattern, int64_t channel, int64_t height, int64_t width,
                Visit visit) {
  const int64_t margin = pattern.sizes.margin(), row = width + 2 * margin;
  const int64_t size = (height + 2 * margin) * row;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t group = 0; group < pattern.sizes.groups; ++group) {
      for (int64_t rep = 0; rep < pattern.sizes.reps; ++rep) {
        const int64_t shift = pattern.shift_of(channel, group, rep);
        const Overlap overlap(width, margin, shift);
        visit(0, group * size + (y + margin) * row + overlap.first - shift,
              y * width + overlap.first, overlap.last - overlap.first);
      }
    }
    for (int64_t group = 0; group < pattern.sizes.groups; ++group) {
      for (int64_t rep = 0; rep < pattern.sizes.reps; ++rep) {
        const int64_t shift = pattern.shift_of(channel, group, pattern.sizes.reps + rep);
        const Overlap overlap(height, margin, shift);
        if (y < overlap.first || y >= overlap.last) continue;
        visit(1, group * size + (y - shift) * row + margin, y * width, width);
      }
    }
    for (int64_t rep = 0; rep < pattern.sizes.reps; ++rep) {
      const int64_t group = pattern.identity_group(channel, rep);
      visit(2, group * size + (y + margin) * row + margin, y * width, width);
    }
  }
}

struct NoScratch {};

template <typename T>
Outputs add_shifted(const Tensor& conv_out, const Pattern& pattern) {
  const int64_t channels = pattern.channels;
  const int64_t margin = pattern.sizes.margin(), height = conv_out.size(2) - 2 * margin;
  const int64_t width = conv_out.size(3) - 2 * margin, area = height * width;
  const int64_t size = conv_out.size(2) * conv_out.size(3) * pattern.sizes.groups;
  const std::vector<int64_t> shape{conv_out.size(0), channels, height, width};
  const Outputs out{at::zeros(shape, conv_out.options()), at::zeros(shape, conv_out.options()),
                    at::zeros(shape, conv_out.options())};
  const T* in = conv_out.const_data_ptr<T>();
  T* to[] = {std::get<0>(out).mutable_data_ptr<T>(), std::get<1>(out).mutable_data_ptr<T>(),
             std::get<2>(out).mutable_data_ptr<T>()};
  const auto& run = kernels<T>();
  for_each(conv_out.size(0) * channels, NoScratch{}, [&](int64_t item, NoScratch&) {
    const T* plane = in + item * size;
    visit_rows(pattern, item % channels, height, width,
               [&](int output, int64_t from, int64_t at, int64_t count) {
                 run.add(plane + from, count, to[output] + item * area + at);
               });
  });
  return out;
}

template <typename T>
Tensor add_shifted_grad(const Outputs& grads, const Pattern& pattern) {
  const auto& [grad_h, grad_v, grad_i] = grads;
  const int64_t margin = pattern.sizes.margin(), batch = grad_h.size(0), channels = grad_h.size(1);
  const int64_t height = grad_h.size(2), width = grad_h.size(3), area = height * width;
  const Tensor grad = at::zeros(
      {batch, channels * pattern.sizes.groups, height + 2 * margin, width + 2 * margin}, grad_h.options());
  const int64_t size = pattern.sizes.groups * (height + 2 * margin) * (width + 2 * margin);
  const T* from[] = {grad_h.const_data_ptr<T>(), grad_v.const_data_ptr<T>(),
                     grad_i.const_data_ptr<T>()};
  T* out = grad.mutable_data_ptr<T>();
  const auto& run = kernels<T>();
  for_each(batch * channels, NoScratch{}, [&](int64_t item, NoScratch&) {
    T* plane = out + item * size;
    visit_rows(pattern, item % channels, height, width,
               [&](int output, int64_t at, int64_t position, int64_t count) {
                 run.add(from[output] + item * area + position, count, plane + at);
               });
  });
  return grad;
}

// The type that is computed in: half types are converted, computed in float32 and rounded once.
Tensor wide_enough(const Tensor& tensor) {
  return tensor.to(tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

Outputs wide_enough(const Outputs& outputs) {
  const auto& [h, v, i] = outputs;
  return {wide_enough(h), wide_enough(v), wide_enough(i)};
}

std::optional<Tensor> wide_enough(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(wide_enough(*tensor)) : tensor;
}

Tensor rounded(const Tensor& tensor, at::ScalarType dtype) { return tensor.to(dtype); }

Outputs rounded(const Outputs& outputs, at::ScalarType dtype) {
  const auto& [h, v, i] = outputs;
  return {h.to(dtype), v.to(dtype), i.to(dtype)};
}

#define MMSW_DISPATCH(DTYPE, FUNCTION, ...)                                    \
  (DTYPE) == at::kDouble ? FUNCTION<double>(__VA_ARGS__) : FUNCTION<float>(__VA_ARGS__)

std::string current_instruction_set() { return instruction_set->name; }

bool set_instruction_set(std::string name) {
  const InstructionSet* found = find_instruction_set(name);
  if (found != nullptr) instruction_set = found;
  return found != nullptr;
}

}  // namespace

Outputs run_shift_add(const Tensor& conv_out, const Pattern& pattern) {
  const auto dtype = conv_out.scalar_type();
  return rounded(MMSW_DISPATCH(dtype, add_shifted, wide_enough(conv_out), pattern), dtype);
}

Tensor run_shift_add_grad(const Outputs& grads, const Pattern& pattern) {
  const auto dtype = std::get<0>(grads).scalar_type();
  return rounded(MMSW_DISPATCH(dtype, add_shifted_grad, wide_enough(grads), pattern), dtype);
}

Outputs run_conv(const Tensor& x, const Tensor& weight, const Pattern& pattern) {
  const auto dtype = x.scalar_type();
  return rounded(MMSW_DISPATCH(dtype, forward, wide_enough(x), wide_enough(weight), pattern), dtype);
}

Tensor run_grad_input(const Outputs& grads, const Tensor& weight, const Pattern& pattern) {
  const auto dtype = weight.scalar_type();
  return rounded(
      MMSW_DISPATCH(dtype, grad_input, wide_enough(grads), wide_enough(weight), pattern), dtype);
}

Tensor run_grad_weight(const Outputs& grads, const Tensor& x, const std::optional<Tensor>& mask,
                       const Pattern& pattern) {
  const auto dtype = x.scalar_type();
  const Tensor grad =
      rounded(MMSW_DISPATCH(dtype, grad_weight, wide_enough(grads), wide_enough(x), pattern), dtype);
  return mask ? grad.masked_fill_(mask->logical_not().view({-1, 1, 1, 1}), 0) : grad;
}

Tensor run_cross(const Tensor& x, const Tensor& wide, const Tensor& tall,
                 const std::optional<Tensor>& bias) {
  const auto dtype = x.scalar_type();
  return rounded(MMSW_DISPATCH(dtype, cross, wide_enough(x), wide_enough(wide), wide_enough(tall),
                               wide_enough(bias)),
                 dtype);
}

TORCH_LIBRARY_FRAGMENT(mmsw_cpp, library) {
  library.def("instruction_set", &current_instruction_set);
  library.def("set_instruction_set", &set_instruction_set);
}

}  // namespace mmsw
