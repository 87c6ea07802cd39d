// Shift and add of a given conv output, and its gradient, on the CPU: row by row, each row summed
// in the type that is computed in and rounded once.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "../backend.h"
#include "dispatch.h"
#include "instruction_sets.h"
#include "parallel.h"

namespace mmsw {
namespace {

// First and one past the last position of an output whose shifted read stays inside the conv
// output.
struct Overlap {
  int64_t first, last;

  Overlap(int64_t length, int64_t margin, int64_t shift)
      : first(std::min(std::max<int64_t>(0, shift), length)),
        last(std::max(first, std::min(length, length + 2 * margin + shift))) {}
  int64_t count() const { return last - first; }
  bool holds(int64_t position) const { return first <= position && position < last; }
};

// The sizes of one channel of an output and of the conv output that belongs to it.
struct Planes {
  int64_t margin, height, width;

  int64_t area() const { return height * width; }
  int64_t rows() const { return height + 2 * margin; }
  int64_t row() const { return width + 2 * margin; }
  int64_t size() const { return rows() * row(); }
};

// Sums row y of the three outputs from the groups of a channel.
template <typename S>
void sum_row(const Pattern& pattern, int64_t channel, const Planes& planes, int64_t y,
             const S* conv_out, Computed<S>* h, Computed<S>* v, Computed<S>* i) {
  const int64_t margin = planes.margin, reps = pattern.sizes.reps;
  for (int64_t group = 0; group < pattern.sizes.groups; ++group) {
    const S* plane = conv_out + group * planes.size();
    for (int64_t rep = 0; rep < reps; ++rep) {
      const int64_t wide = pattern.shift_of(channel, group, rep);
      const Overlap columns(planes.width, margin, wide);
      const S* row = plane + (y + margin) * planes.row();
      Stored<S>::add(row + columns.first - wide, columns.count(), h + columns.first);
      const int64_t tall = pattern.shift_of(channel, group, reps + rep);
      if (!Overlap(planes.height, margin, tall).holds(y)) continue;
      Stored<S>::add(plane + (y - tall) * planes.row() + margin, planes.width, v);
    }
  }
  for (int64_t rep = 0; rep < reps; ++rep) {
    const S* plane = conv_out + pattern.identity_group(channel, rep) * planes.size();
    Stored<S>::add(plane + (y + margin) * planes.row() + margin, planes.width, i);
  }
}

// Sums row p of the gradient of one group from the gradients of the three outputs.
template <typename S>
void sum_grad_row(const Pattern& pattern, int64_t channel, int64_t group, const Planes& planes,
                  int64_t p, const S* grad_h, const S* grad_v, const S* grad_i, Computed<S>* out) {
  const int64_t margin = planes.margin, reps = pattern.sizes.reps, y = p - margin;
  const bool inside = 0 <= y && y < planes.height;
  for (int64_t rep = 0; rep < reps; ++rep) {
    const int64_t wide = pattern.shift_of(channel, group, rep);
    const Overlap columns(planes.width, margin, wide);
    if (inside) {
      Stored<S>::add(grad_h + y * planes.width + columns.first, columns.count(),
                     out + columns.first - wide);
    }
    const int64_t tall = pattern.shift_of(channel, group, reps + rep);
    if (Overlap(planes.height, margin, tall).holds(p + tall)) {
      Stored<S>::add(grad_v + (p + tall) * planes.width, planes.width, out + margin);
    }
    if (inside && pattern.identity_group(channel, rep) == group) {
      Stored<S>::add(grad_i + y * planes.width, planes.width, out + margin);
    }
  }
}

template <typename S>
Outputs add_shifted(const Tensor& conv_out, const Pattern& pattern) {
  const int64_t margin = pattern.sizes.margin(), channels = pattern.channels;
  const Planes planes{margin, conv_out.size(2) - 2 * margin, conv_out.size(3) - 2 * margin};
  const std::vector<int64_t> shape{conv_out.size(0), channels, planes.height, planes.width};
  const Outputs out{at::empty(shape, conv_out.options()), at::empty(shape, conv_out.options()),
                    at::empty(shape, conv_out.options())};
  const S* in = conv_out.const_data_ptr<S>();
  S* to[] = {std::get<0>(out).mutable_data_ptr<S>(), std::get<1>(out).mutable_data_ptr<S>(),
             std::get<2>(out).mutable_data_ptr<S>()};
  const int64_t width = planes.width, size = pattern.sizes.groups * planes.size();
  for_each(conv_out.size(0) * channels, 1, std::vector<Computed<S>>(3 * width),
           [&](int64_t item, std::vector<Computed<S>>& sums) {
             for (int64_t y = 0; y < planes.height; ++y) {
               std::fill(sums.begin(), sums.end(), 0);
               auto *h = sums.data(), *v = h + width, *i = v + width;
               sum_row(pattern, item % channels, planes, y, in + item * size, h, v, i);
               for (int output = 0; output < 3; ++output) {
                 Stored<S>::narrow(h + output * width, width, 1, width,
                                   to[output] + item * planes.area() + y * width, width);
               }
             }
           });
  return out;
}

template <typename S>
Tensor add_shifted_grad(const Outputs& grads, const Pattern& pattern) {
  const auto& [grad_h, grad_v, grad_i] = grads;
  const int64_t batch = grad_h.size(0), channels = grad_h.size(1), groups = pattern.sizes.groups;
  const Planes planes{pattern.sizes.margin(), grad_h.size(2), grad_h.size(3)};
  const Tensor grad =
      at::empty({batch, channels * groups, planes.rows(), planes.row()}, grad_h.options());
  const S* h = grad_h.const_data_ptr<S>();
  const S* v = grad_v.const_data_ptr<S>();
  const S* i = grad_i.const_data_ptr<S>();
  S* out = grad.mutable_data_ptr<S>();
  const int64_t row = planes.row();
  for_each(batch * channels * groups, groups, std::vector<Computed<S>>(row),
           [&](int64_t item, std::vector<Computed<S>>& sums) {
             const int64_t map = item / groups, at = map * planes.area();
             for (int64_t p = 0; p < planes.rows(); ++p) {
               std::fill(sums.begin(), sums.end(), 0);
               sum_grad_row(pattern, map % channels, item % groups, planes, p, h + at, v + at,
                            i + at, sums.data());
               Stored<S>::narrow(sums.data(), row, 1, row, out + item * planes.size() + p * row,
                                 row);
             }
           });
  return grad;
}

}  // namespace

Outputs run_shift_add(const Tensor& conv_out, const Pattern& pattern) {
  return MMSW_DISPATCH(conv_out, add_shifted, conv_out, pattern);
}

Tensor run_shift_add_grad(const Outputs& grads, const Pattern& pattern) {
  return MMSW_DISPATCH(std::get<0>(grads), add_shifted_grad, grads, pattern);
}

}  // namespace mmsw
