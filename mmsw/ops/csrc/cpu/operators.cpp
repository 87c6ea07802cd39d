// The CPU operators as PyTorch sees them. Work is shared out by planes, one (sample, channel) or
// one channel at a time, so results do not depend on the number of threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <tuple>
#include <vector>

#include "cross_kernels.h"
#include "kernels.h"

namespace mmsw {
namespace {

using at::Tensor;
using Outputs = std::tuple<Tensor, Tensor, Tensor>;

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

// The tables of a ShiftPattern, in the layout that the loops read, and the pattern that they make.
struct Tables {
  Tensor shift, identity;
  Pattern pattern;
};

// Slots and groups become places to write to, so none of them may lie outside its channel.
Tables read_tables(const Tensor& shift_hv, const Tensor& identity_index, int64_t big,
                   int64_t side) {
  TORCH_CHECK_VALUE(shift_hv.dim() == 2 && identity_index.dim() == 2,
                    "shift_hv must be [C * nk, 2 * R] and identity_index [C, R], got ",
                    shift_hv.sizes(), " and ", identity_index.sizes());
  Tables tables{shift_hv.to(at::kInt).contiguous(), identity_index.to(at::kLong).contiguous(), {}};
  const int64_t groups = (big + side - 1) / side;
  const int64_t channels = identity_index.size(0), reps = identity_index.size(1);
  TORCH_CHECK_VALUE(shift_hv.size(0) == channels * groups && shift_hv.size(1) == 2 * reps,
                    "shift_hv ", shift_hv.sizes(), " does not fit identity_index ",
                    identity_index.sizes(), " with ", groups, " groups per channel");
  const int32_t* shift = tables.shift.const_data_ptr<int32_t>();
  const int64_t* identity = tables.identity.const_data_ptr<int64_t>();
  const int64_t largest = big / 2 - (side - 1), smallest = largest - (groups - 1) * side;
  bool inside = true;
  for (int64_t i = 0; i < tables.shift.numel(); ++i) {
    inside &= (shift[i] >= smallest) & (shift[i] <= largest);
  }
  for (int64_t channel = 0; channel < channels; ++channel) {
    for (int64_t rep = 0; rep < reps; ++rep) {
      const int64_t group = identity[channel * reps + rep] - channel * groups;
      inside &= (group >= 0) & (group < groups);
    }
  }
  TORCH_CHECK_VALUE(inside, "the tables hold no pattern: shifts must lie between ", smallest,
                    " and ", largest, ", identity groups in their channel; were they ever filled?");
  tables.pattern = {big, side, groups, reps, shift, identity};
  return tables;
}

template <typename T>
struct ConvScratch {
  ConvScratch(const Pattern& pattern, int64_t height, int64_t width)
      : kernel(pattern),
        upright(height, width, pattern.side),
        turned(width, height, pattern.side),
        turned_out(height * width) {}

  CrossKernel<T> kernel;
  BlockList<T> wide, tall, small;
  Frame<T> upright, turned;
  std::vector<T> turned_out;
  int64_t channel = -1;  // that `kernel` and the lists are of

  void use(const Pattern& pattern, const T* weight, int64_t next, bool flip) {
    if (channel == next) return;
    channel = next;
    assemble(pattern, channel, weight + channel * pattern.arm_size(), kernel);
    const int64_t taps = pattern.groups * pattern.side, first = -(pattern.big / 2);
    wide.fill(kernel.wide.data(), taps, pattern.side, first, flip);
    tall.fill(kernel.tall.data(), taps, pattern.side, first, flip);
    small.fill(kernel.small.data(), pattern.side, pattern.side, -(pattern.side / 2), flip);
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
  const int64_t batch = x.size(0), side = pattern.side;
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
Tensor grad_input(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                  const Tensor& weight, const Pattern& pattern) {
  const int64_t channels = grad_h.size(1), height = grad_h.size(2), width = grad_h.size(3);
  const int64_t batch = grad_h.size(0), side = pattern.side, area = height * width;
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
        map(height, width, pattern.side),
        grad(height, width, pattern.side),
        turned_map(width, height, pattern.side),
        turned_grad(width, height, pattern.side) {}

  CrossKernel<T> kernel;
  Frame<T> map, grad, turned_map, turned_grad;
};

template <typename T>
Tensor grad_weight(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                   const Tensor& x, const Pattern& pattern) {
  const int64_t channels = x.size(1), height = x.size(2), width = x.size(3), area = height * width;
  const int64_t batch = x.size(0), side = pattern.side, taps = pattern.groups * side;
  const Tensor grad = at::zeros({channels * pattern.groups, 1, side, side}, x.options());
  const T* in = x.const_data_ptr<T>();
  const T* h = grad_h.const_data_ptr<T>();
  const T* v = grad_v.const_data_ptr<T>();
  const T* i = grad_i.const_data_ptr<T>();
  T* out = grad.mutable_data_ptr<T>();
  const auto& run = kernels<T>();
  for_each(channels, GradScratch<T>(pattern, height, width),
           [&](int64_t channel, GradScratch<T>& own) {
             own.kernel.clear();
             const int64_t first = -(pattern.big / 2);
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
             disassemble(pattern, channel, own.kernel, out + channel * pattern.arm_size());
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
Tensor cross(const Tensor& x, const Tensor& wide, const Tensor& tall, const Tensor& bias) {
  const int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  const int64_t side = wide.size(2), area = height * width;
  const Tensor result = at::empty(x.sizes(), x.options());
  const T* in = x.const_data_ptr<T>();
  const T* wides = wide.const_data_ptr<T>();
  const T* talls = tall.const_data_ptr<T>();
  const T* biases = bias.const_data_ptr<T>();
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
                           biases[channel], false, own.turned_out.data(), height);
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
  const int64_t margin = pattern.margin(), row = width + 2 * margin;
  const int64_t size = (height + 2 * margin) * row;
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t group = 0; group < pattern.groups; ++group) {
      for (int64_t rep = 0; rep < pattern.reps; ++rep) {
        const int64_t shift = pattern.shift_of(channel, group, rep);
        const Overlap overlap(width, margin, shift);
        visit(0, group * size + (y + margin) * row + overlap.first - shift,
              y * width + overlap.first, overlap.last - overlap.first);
      }
    }
    for (int64_t group = 0; group < pattern.groups; ++group) {
      for (int64_t rep = 0; rep < pattern.reps; ++rep) {
        const int64_t shift = pattern.shift_of(channel, group, pattern.reps + rep);
        const Overlap overlap(height, margin, shift);
        if (y < overlap.first || y >= overlap.last) continue;
        visit(1, group * size + (y - shift) * row + margin, y * width, width);
      }
    }
    for (int64_t rep = 0; rep < pattern.reps; ++rep) {
      const int64_t group =
          pattern.identity[channel * pattern.reps + rep] - channel * pattern.groups;
      visit(2, group * size + (y + margin) * row + margin, y * width, width);
    }
  }
}

struct NoScratch {};

template <typename T>
Outputs add_shifted(const Tensor& conv_out, const Pattern& pattern, int64_t channels) {
  const int64_t margin = pattern.margin(), height = conv_out.size(2) - 2 * margin;
  const int64_t width = conv_out.size(3) - 2 * margin, area = height * width;
  const int64_t size = conv_out.size(2) * conv_out.size(3) * pattern.groups;
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
Tensor add_shifted_grad(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                        const Pattern& pattern) {
  const int64_t margin = pattern.margin(), batch = grad_h.size(0), channels = grad_h.size(1);
  const int64_t height = grad_h.size(2), width = grad_h.size(3), area = height * width;
  const Tensor grad = at::zeros(
      {batch, channels * pattern.groups, height + 2 * margin, width + 2 * margin}, grad_h.options());
  const int64_t size = pattern.groups * (height + 2 * margin) * (width + 2 * margin);
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

#define MMSW_DISPATCH(TENSOR, FUNCTION, ...)                                        \
  ((TENSOR).scalar_type() == at::kDouble ? FUNCTION<double>(__VA_ARGS__)            \
                                         : FUNCTION<float>(__VA_ARGS__))

// The callers (mmsw/ops/backends/cpp_backend.py) pass contiguous float32 or float64 CPU tensors.
Outputs shift_add(const Tensor& conv_out, const Tensor& shift, const Tensor& identity, int64_t big,
                  int64_t side) {
  const Tables tables = read_tables(shift, identity, big, side);
  return MMSW_DISPATCH(conv_out, add_shifted, conv_out, tables.pattern, identity.size(0));
}

Tensor shift_add_grad(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                      const Tensor& shift, const Tensor& identity, int64_t big, int64_t side) {
  const Tables tables = read_tables(shift, identity, big, side);
  return MMSW_DISPATCH(grad_h, add_shifted_grad, grad_h, grad_v, grad_i, tables.pattern);
}

Outputs shift_wise_conv2d(const Tensor& x, const Tensor& weight, const Tensor& shift,
                          const Tensor& identity, int64_t big, int64_t side) {
  const Tables tables = read_tables(shift, identity, big, side);
  return MMSW_DISPATCH(x, forward, x, weight, tables.pattern);
}

Tensor shift_wise_conv2d_grad_input(const Tensor& grad_h, const Tensor& grad_v,
                                    const Tensor& grad_i, const Tensor& weight,
                                    const Tensor& shift, const Tensor& identity, int64_t big,
                                    int64_t side) {
  const Tables tables = read_tables(shift, identity, big, side);
  return MMSW_DISPATCH(weight, grad_input, grad_h, grad_v, grad_i, weight, tables.pattern);
}

Tensor shift_wise_conv2d_grad_weight(const Tensor& grad_h, const Tensor& grad_v,
                                     const Tensor& grad_i, const Tensor& x, const Tensor& shift,
                                     const Tensor& identity, int64_t big, int64_t side) {
  const Tables tables = read_tables(shift, identity, big, side);
  return MMSW_DISPATCH(x, grad_weight, grad_h, grad_v, grad_i, x, tables.pattern);
}

Tensor cross_conv2d(const Tensor& x, const Tensor& wide, const Tensor& tall, const Tensor& bias) {
  return MMSW_DISPATCH(x, cross, x, wide, tall, bias);
}

std::string current_instruction_set() { return instruction_set->name; }

bool set_instruction_set(std::string name) {
  const InstructionSet* found = find_instruction_set(name);
  if (found != nullptr) instruction_set = found;
  return found != nullptr;
}

std::string compiled_for_torch() { return TORCH_VERSION; }

TORCH_LIBRARY(mmsw_cpp, library) {
  library.def("shift_add", &shift_add);
  library.def("shift_add_grad", &shift_add_grad);
  library.def("shift_wise_conv2d", &shift_wise_conv2d);
  library.def("shift_wise_conv2d_grad_input", &shift_wise_conv2d_grad_input);
  library.def("shift_wise_conv2d_grad_weight", &shift_wise_conv2d_grad_weight);
  library.def("cross_conv2d", &cross_conv2d);
  library.def("instruction_set", &current_instruction_set);
  library.def("set_instruction_set", &set_instruction_set);
  library.def("compiled_for_torch", &compiled_for_torch);
}

}  // namespace
}  // namespace mmsw
