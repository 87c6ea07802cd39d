// Runs the block programs of the CUDA kernels on the CPU, block by block and thread by thread.
// Part of the tests, not of the extension: built with a plain C++17 compiler and called by ctypes.
#include "shift_add.cuh"
#include "shift_wise_grad_weight.cuh"

#include <algorithm>
#include <limits>
#include <vector>

namespace mmsw {
namespace {

// Scratch like shared memory: nothing may be read before it was written.
template <typename V>
std::vector<V> scratch(size_t count) {
  const V poison = std::numeric_limits<V>::has_quiet_NaN ? std::numeric_limits<V>::quiet_NaN()
                                                         : std::numeric_limits<V>::max();
  return std::vector<V>(count, poison);
}

template <typename T>
struct Units {
  std::vector<typename Accumulator<T>::type> values;
  std::vector<uint8_t> occupied;
};

template <typename T>
Units<T> assembled(
    const ConvSizes& sizes, bool flipped, const T* weight, const int* shift_hv,
    const int64_t* identity_index) {
  const size_t count = static_cast<size_t>(sizes.channels) * sizes.units();
  Units<T> units = {
      scratch<typename Accumulator<T>::type>(count * sizes.taps()), std::vector<uint8_t>(count)};
  for (int channel = 0; channel < sizes.channels; ++channel) {
    std::vector<int> group_at = scratch<int>(2 * sizes.reps * sizes.groups);
    assemble_channel<T>(
        HostBlock{128}, channel, sizes, flipped, weight, shift_hv, identity_index,
        units.values.data(), units.occupied.data(), group_at.data());
  }
  return units;
}

template <typename T, int kSide>
void run_conv(bool forward, const ConvSizes& sizes, const ConvMaps<T>& maps,
              const Units<T>& units, int most_slots) {
  using Acc = typename Accumulator<T>::type;
  ConvPlan plan = plan_conv(sizes, sizeof(Acc));
  plan.stage_slots = std::min(plan.stage_slots, most_slots);
  const int64_t bytes = conv_shared_bytes(sizes, plan.tile, plan.stage_slots, sizeof(Acc));
  for (int64_t work = 0; work < sizes.planes() * plan.tiles(); ++work) {
    std::vector<Acc> shared = scratch<Acc>((bytes + sizeof(Acc) - 1) / sizeof(Acc));
    conv_tile<T, kSide>(
        HostBlock{conv_threads(plan)}, forward, work, sizes, plan, maps, units.values.data(),
        units.occupied.data(), shared.data());
  }
}

template <typename T, int kSide>
void run_grad_weight(
    const ConvSizes& sizes, const T* grad_h, const T* grad_v, const T* grad_i, const T* x,
    const int* shift_hv, const int64_t* identity_index, T* grad_weight) {
  using Acc = typename Accumulator<T>::type;
  const GradPlan plan = plan_grad(sizes, kSide > 0, sizeof(Acc));
  const size_t count = static_cast<size_t>(sizes.channels) * sizes.units() * sizes.taps();
  std::vector<Acc> workspace = scratch<Acc>(count * plan.chunks);
  for (int chunk = 0; chunk < plan.chunks; ++chunk) {
    for (int channel = 0; channel < sizes.channels; ++channel) {
      for (int part = 0; part < plan.parts(); ++part) {
        std::vector<Acc> shared = scratch<Acc>(plan.shared_values);
        grad_weight_chunk<T, kSide>(
            HostBlock{plan.threads()}, part, channel, chunk, sizes, plan, grad_h, grad_v, grad_i,
            x, workspace.data(), shared.data());
      }
    }
  }
  for (size_t i = 0; i < count; ++i) {
    reduce_chunks(static_cast<int64_t>(i), count, plan.chunks, workspace.data());
  }
  const int64_t values = static_cast<int64_t>(sizes.channels) * sizes.groups * sizes.taps();
  for (int64_t i = 0; i < values; ++i) {
    gather_grad<T>(i, sizes, shift_hv, identity_index, workspace.data(), grad_weight);
  }
}

// `generic` runs the loops for sides that are not compiled in on any side.
template <typename T, typename Function>
void with_side(const ConvSizes& sizes, bool generic, Function function) {
  if (!generic && sizes.side == 3) {
    function(std::integral_constant<int, 3>());
  } else if (!generic && sizes.side == 5) {
    function(std::integral_constant<int, 5>());
  } else {
    function(std::integral_constant<int, 0>());
  }
}

template <typename T>
void conv(
    const ConvSizes& sizes, bool generic, int most_slots, const T* x, const T* weight,
    const int* shift_hv, const int64_t* identity_index, T* out_h, T* out_v, T* out_i) {
  const Units<T> units = assembled(sizes, false, weight, shift_hv, identity_index);
  with_side<T>(sizes, generic, [&](auto side) {
    run_conv<T, side.value>(true, sizes, {x, x, x, out_h, out_v, out_i}, units, most_slots);
  });
}

template <typename T>
void conv_grad_input(
    const ConvSizes& sizes, bool generic, int most_slots, const T* grad_h, const T* grad_v,
    const T* grad_i, const T* weight, const int* shift_hv, const int64_t* identity_index,
    T* grad_x) {
  const Units<T> units = assembled(sizes, true, weight, shift_hv, identity_index);
  with_side<T>(sizes, generic, [&](auto side) {
    run_conv<T, side.value>(
        false, sizes, {grad_h, grad_v, grad_i, nullptr, nullptr, grad_x}, units, most_slots);
  });
}

template <typename T>
void conv_grad_weight(
    const ConvSizes& sizes, bool generic, const T* grad_h, const T* grad_v, const T* grad_i,
    const T* x, const int* shift_hv, const int64_t* identity_index, T* grad_weight) {
  with_side<T>(sizes, generic, [&](auto side) {
    run_grad_weight<T, side.value>(
        sizes, grad_h, grad_v, grad_i, x, shift_hv, identity_index, grad_weight);
  });
}

constexpr int kStripThreads = 256;

int strips_of(int64_t positions) {
  return static_cast<int>((positions + kStripThreads - 1) / kStripThreads);
}

template <typename T>
void shift_add(
    const ConvSizes& sizes, const T* conv_out, const int* shift_hv, const int64_t* identity_index,
    T* out_h, T* out_v, T* out_i) {
  std::vector<int> shared((2 * sizes.groups + 1) * sizes.reps);
  for (int64_t plane = 0; plane < sizes.planes(); ++plane) {
    for (int strip = 0; strip < strips_of(sizes.plane_size()); ++strip) {
      shift_add_strip<T>(
          HostBlock{kStripThreads}, plane, strip, sizes, conv_out, shift_hv, identity_index, out_h,
          out_v, out_i, shared.data());
    }
  }
}

template <typename T>
void shift_add_grad(
    const ConvSizes& sizes, const T* grad_h, const T* grad_v, const T* grad_i,
    const int* shift_hv, const int64_t* identity_index, T* grad_conv_out) {
  const int64_t border = 2 * conv_margin(sizes.side);
  const int strips = strips_of((sizes.height + border) * (sizes.width + border));
  std::vector<int> shared((2 * sizes.groups + 1) * sizes.reps);
  for (int64_t map = 0; map < sizes.planes() * sizes.groups; ++map) {
    for (int strip = 0; strip < strips; ++strip) {
      shift_add_grad_strip<T>(
          HostBlock{kStripThreads}, map, strip, sizes, grad_h, grad_v, grad_i, shift_hv,
          identity_index, grad_conv_out, shared.data());
    }
  }
}

}  // namespace
}  // namespace mmsw

using mmsw::ConvSizes;

#define MMSW_EXPORT(T, SUFFIX)                                                                    \
  void conv_##SUFFIX(                                                                             \
      const ConvSizes* sizes, int generic, int most_slots, const T* x, const T* weight,           \
      const int* shift_hv, const int64_t* identity_index, T* out_h, T* out_v, T* out_i) {         \
    mmsw::conv(*sizes, generic != 0, most_slots, x, weight, shift_hv, identity_index, out_h,      \
               out_v, out_i);                                                                     \
  }                                                                                               \
  void conv_grad_input_##SUFFIX(                                                                  \
      const ConvSizes* sizes, int generic, int most_slots, const T* grad_h, const T* grad_v,      \
      const T* grad_i, const T* weight, const int* shift_hv, const int64_t* identity_index,       \
      T* grad_x) {                                                                                \
    mmsw::conv_grad_input(*sizes, generic != 0, most_slots, grad_h, grad_v, grad_i, weight,       \
                          shift_hv, identity_index, grad_x);                                      \
  }                                                                                               \
  void conv_grad_weight_##SUFFIX(                                                                 \
      const ConvSizes* sizes, int generic, const T* grad_h, const T* grad_v, const T* grad_i,     \
      const T* x, const int* shift_hv, const int64_t* identity_index, T* grad_weight) {           \
    mmsw::conv_grad_weight(*sizes, generic != 0, grad_h, grad_v, grad_i, x, shift_hv,             \
                           identity_index, grad_weight);                                          \
  }                                                                                               \
  void shift_add_##SUFFIX(                                                                        \
      const ConvSizes* sizes, const T* conv_out, const int* shift_hv,                             \
      const int64_t* identity_index, T* out_h, T* out_v, T* out_i) {                              \
    mmsw::shift_add(*sizes, conv_out, shift_hv, identity_index, out_h, out_v, out_i);             \
  }                                                                                               \
  void shift_add_grad_##SUFFIX(                                                                   \
      const ConvSizes* sizes, const T* grad_h, const T* grad_v, const T* grad_i,                  \
      const int* shift_hv, const int64_t* identity_index, T* grad_conv_out) {                     \
    mmsw::shift_add_grad(*sizes, grad_h, grad_v, grad_i, shift_hv, identity_index,                \
                         grad_conv_out);                                                          \
  }

extern "C" {
MMSW_EXPORT(float, float32)
MMSW_EXPORT(double, float64)

// Bytes of shared memory of one block of the forward pass and of the weight gradient.
void shared_bytes(const ConvSizes* sizes, int value_bytes, int generic, int64_t* conv,
                  int64_t* grad) {
  const mmsw::ConvPlan plan = mmsw::plan_conv(*sizes, value_bytes);
  *conv = mmsw::conv_shared_bytes(*sizes, plan.tile, plan.stage_slots, value_bytes);
  *grad = static_cast<int64_t>(mmsw::plan_grad(*sizes, generic == 0, value_bytes).shared_values) *
          value_bytes;
}
}
