// Runs the programs of the CUDA kernels on the CPU, block by block and thread by thread. Built with
// a plain C++17 compiler and called by ctypes; see tests/ops/test_cuda_host.py.
#include "conv.cuh"
#include "grad_weight.cuh"
#include "shift_add.cuh"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace mmsw {

// A float without its lower half, rounded to the nearest, ties to even.
struct BFloat16 {
  uint16_t bits;
};

template <>
struct Convert<BFloat16> {
  static float load(BFloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
  }
  static BFloat16 store(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (value != value) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  }
};

namespace {

// How a test wants the programs to run.
struct Options {
  int generic;     // the loops for sides that are not compiled in, whatever the side
  int most_slots;  // that are held at a time, at most
  int order;       // of the threads: 0 ascending, 1 descending, 2 shuffled
};

// Scratch like shared memory: nothing may be read before it was written.
template <typename V>
std::vector<V> scratch(size_t count) {
  const V poison = std::numeric_limits<V>::has_quiet_NaN ? std::numeric_limits<V>::quiet_NaN()
                                                         : std::numeric_limits<V>::max();
  return std::vector<V>(count, poison);
}

// Aligned as dynamic shared memory is.
template <typename V>
struct Shared {
  std::vector<V> memory;
  V* data;
  explicit Shared(size_t count) : memory(scratch<V>(count + 16 / sizeof(V))) {
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    data = memory.data() + (16 - address % 16) % 16 / sizeof(V);
  }
};

struct Threads {
  std::vector<int> order;
  Threads(int count, const Options& options) : order(count) {
    for (int i = 0; i < count; ++i) order[i] = options.order == 1 ? count - 1 - i : i;
    if (options.order == 2) std::shuffle(order.begin(), order.end(), std::mt19937(count));
  }
  HostTeam team() const { return {static_cast<int>(order.size()), order.data()}; }
};

// As on the GPU; to keep compiling short, only float has every side that is compiled in.
template <typename T, typename Function>
void with_side(int side, int tile, bool generic, Function function) {
  using std::integral_constant;
  [[maybe_unused]] const auto with_tile = [&](auto known) {
    if (tile == 8) return function(known, integral_constant<int, 8>());
    if (tile == 16) return function(known, integral_constant<int, 16>());
    return function(known, integral_constant<int, 32>());
  };
  if constexpr (!std::is_same<T, double>::value) {
    if (!generic && side == 3) return with_tile(integral_constant<int, 3>());
  }
  if constexpr (std::is_same<T, float>::value) {
    if (!generic && side == 5) return with_tile(integral_constant<int, 5>());
  }
  function(integral_constant<int, 0>(), integral_constant<int, 0>());
}

template <typename T>
bool known_side(int side) {
  return (side == 3 && sizeof(T) < 8) || (side == 5 && sizeof(T) == 4);
}

template <typename T>
struct Blocks {
  using Acc = typename Accumulator<T>::type;
  Shared<Acc> values;
  std::vector<uint32_t> occupied;
  std::vector<int> integers;
  Blocks(const MapSizes& map, const Cross& cross, int64_t scratch_size)
      : values(static_cast<size_t>(map.channels) * cross.values()),
        occupied(scratch<uint32_t>(static_cast<size_t>(map.channels) * cross.words())),
        integers(scratch<int>(scratch_size)) {}
};

template <typename T>
void run_conv(ConvTask<T> task, const Blocks<T>& blocks, const Options& options) {
  using Acc = typename Accumulator<T>::type;
  task.blocks = blocks.values.data;
  task.occupied = blocks.occupied.data();
  task.plan = plan_conv(task.map, task.cross, sizeof(Acc));
  task.plan.stage_slots = std::min(task.plan.stage_slots, options.most_slots);
  const Threads threads(task.plan.threads, options);
  with_side<T>(
      task.cross.side, task.plan.tiles.tile, options.generic != 0, [&](auto side, auto tile) {
        for (int64_t work = 0; work < task.work(); ++work) {
          const Shared<Acc> shared(task.plan.shared_values);
          const HostTeam team = threads.team();
          ConvTile<T, side.value, tile.value, HostTeam>(team, task, work, shared.data).run();
        }
      });
}

template <typename T>
void run_pattern(ConvTask<T> task, bool flipped, const T* weight, const Pattern& pattern,
                 const Options& options) {
  task.cross = cross_of_pattern(pattern.sizes, flipped);
  Blocks<T> blocks(task.map, task.cross, pattern_scratch(pattern.sizes));
  const Threads threads(128, options);
  for (int channel = 0; channel < task.map.channels; ++channel) {
    assemble_pattern<T>(threads.team(), channel, pattern, task.cross, flipped, weight,
                        blocks.values.data, blocks.occupied.data(), blocks.integers.data());
  }
  run_conv(task, blocks, options);
}

template <typename T>
void conv(const MapSizes& map, const Pattern& pattern, const Options& options, void** maps) {
  ConvTask<T> task = {};
  task.map = map;
  for (int i = 0; i < 3; ++i) {
    task.inputs[i] = static_cast<const T*>(maps[0]);
    task.outputs[i] = static_cast<T*>(maps[2 + i]);
  }
  run_pattern(task, false, static_cast<const T*>(maps[1]), pattern, options);
}

template <typename T>
void grad_input(const MapSizes& map, const Pattern& pattern, const Options& options, void** maps) {
  ConvTask<T> task = {};
  task.map = map;
  for (int i = 0; i < 3; ++i) task.inputs[i] = static_cast<const T*>(maps[i]);
  task.outputs[2] = static_cast<T*>(maps[4]);
  run_pattern(task, true, static_cast<const T*>(maps[3]), pattern, options);
}

// `pattern` carries the lengths of the arms: the wide one as `big`, the tall one as `groups`.
template <typename T>
void cross(const MapSizes& map, const Pattern& pattern, const Options& options, void** maps) {
  ConvTask<T> task = {};
  task.map = map;
  task.cross = cross_of_arms(pattern.sizes.side, pattern.sizes.big, pattern.sizes.groups);
  task.inputs[0] = task.inputs[1] = static_cast<const T*>(maps[0]);
  task.bias = static_cast<const T*>(maps[3]);
  task.outputs[2] = static_cast<T*>(maps[4]);
  Blocks<T> blocks(map, task.cross, arms_scratch(task.cross));
  const Threads threads(128, options);
  for (int channel = 0; channel < map.channels; ++channel) {
    assemble_arms<T>(threads.team(), channel, task.cross, static_cast<const T*>(maps[1]),
                     static_cast<const T*>(maps[2]), blocks.values.data, blocks.occupied.data(),
                     blocks.integers.data());
  }
  run_conv(task, blocks, options);
}

template <typename T>
void grad_weight(const MapSizes& map, const Pattern& pattern, const Options& options, void** maps) {
  using Acc = typename Accumulator<T>::type;
  const PatternSizes& sizes = pattern.sizes;
  const bool* mask = static_cast<const bool*>(maps[4]);
  GradTask<T> task = {};
  task.map = map;
  task.sizes = sizes;
  task.cross = cross_of_pattern(sizes, false);
  for (int i = 0; i < 3; ++i) task.grads[i] = static_cast<const T*>(maps[i]);
  task.x = static_cast<const T*>(maps[3]);
  std::vector<uint32_t> active(static_cast<size_t>(map.channels) * task.cross.words());
  for (size_t i = 0; i < active.size() && mask != nullptr; ++i) {
    active[i] = active_word(static_cast<int>(i / task.cross.words()),
                            static_cast<int>(i % task.cross.words()), pattern, task.cross, mask);
  }
  task.active = mask == nullptr ? nullptr : active.data();
  const size_t count = static_cast<size_t>(map.channels) * task.cross.blocks() * sizes.block_size();
  const bool known = options.generic == 0 && known_side<T>(sizes.side);
  task.plan = plan_grad(map, sizes,
                        !known            ? 0
                        : sizes.side == 3 ? kWarpSlots<3>
                                          : kWarpSlots<5>,
                        sizeof(Acc));
  std::vector<Acc> workspace = scratch<Acc>(count * task.plan.chunks);
  task.workspace = workspace.data();
  const Threads threads(task.plan.threads(), options);
  with_side<T>(sizes.side, task.plan.tiles.tile, !known, [&](auto side, auto tile) {
    for (int64_t work = 0; work < task.plan.work(map.channels); ++work) {
      const Shared<Acc> shared(task.plan.shared_values);
      const HostTeam team = threads.team();
      GradPart<T, side.value, tile.value, HostTeam>(team, task, work, shared.data).run();
    }
  });
  for (size_t i = 0; i < count; ++i) reduce_chunks<Acc>(i, count, task.plan.chunks, task.workspace);
  const int64_t values = int64_t{map.channels} * sizes.groups * sizes.block_size();
  for (int64_t i = 0; i < values; ++i) {
    static_cast<T*>(maps[5])[i] = gather_grad<T>(i, pattern, mask, task.workspace);
  }
}

// `pattern` carries the kernel: height as `big`, width as `groups`, N as `side`, flipped as `reps`.
Strips cut(const Pattern& pattern, bool overlapping) {
  const auto [height, side, width, flipped] = pattern.sizes;
  return strips_of(height, width, strip_side(height, width, side), flipped != 0, overlapping);
}

template <typename T>
void depthwise(const MapSizes& map, const Pattern& pattern, const Options& options, void** maps) {
  using Acc = typename Accumulator<T>::type;
  StripsTask<T> task = {};
  task.strips = cut(pattern, true);
  task.map = map;
  task.cross = task.strips.cross();
  task.inputs[0] = static_cast<const T*>(maps[0]);
  task.bias = static_cast<const T*>(maps[2]);
  task.outputs[0] = static_cast<T*>(maps[3]);
  Blocks<T> blocks(map, task.cross, strips_scratch(task.strips));
  const Threads team(128, options);
  for (int channel = 0; channel < map.channels; ++channel) {
    assemble_strips<T>(team.team(), channel, task.strips, static_cast<const T*>(maps[1]),
                       blocks.values.data, blocks.occupied.data(), blocks.integers.data());
  }
  task.blocks = blocks.values.data;
  task.occupied = blocks.occupied.data();
  task.plan = plan_conv(map, task.cross, sizeof(Acc));
  task.plan.stage_slots = std::min(task.plan.stage_slots, options.most_slots);
  const Threads threads(task.plan.threads, options);
  with_side<T>(task.strips.side, task.plan.tiles.tile, options.generic != 0,
               [&](auto side, auto tile) {
                 for (int64_t work = 0; work < task.work(); ++work) {
                   const Shared<Acc> shared(task.plan.shared_values);
                   const HostTeam own = threads.team();
                   ConvTile<T, side.value, tile.value, HostTeam>(own, task, work, shared.data)
                       .run_strips(task.strips);
                 }
               });
}

template <typename T>
void depthwise_grad(const MapSizes& map, const Pattern& pattern, const Options& options,
                    void** maps) {
  using Acc = typename Accumulator<T>::type;
  StripsGradTask<T> task = {};
  task.strips = cut(pattern, false);
  task.map = map;
  task.sizes = strip_sizes(task.strips);
  task.cross = task.strips.cross();
  for (const T*& grad : task.grads) grad = static_cast<const T*>(maps[0]);
  task.x = static_cast<const T*>(maps[1]);
  const int side = task.strips.side;
  const bool known = options.generic == 0 && known_side<T>(side);
  task.plan = plan_grad(map, task.sizes,
                        !known      ? 0
                        : side == 3 ? kWarpSlots<3>
                                    : kWarpSlots<5>,
                        sizeof(Acc), task.strips.count(), false);
  const size_t count = static_cast<size_t>(map.channels) * task.strips.blocks() * side * side;
  std::vector<Acc> workspace = scratch<Acc>(count * task.plan.chunks);
  task.workspace = workspace.data();
  const Threads threads(task.plan.threads(), options);
  with_side<T>(side, task.plan.tiles.tile, !known, [&](auto known_side, auto tile) {
    for (int64_t work = 0; work < task.plan.work(map.channels); ++work) {
      const Shared<Acc> shared(task.plan.shared_values);
      const HostTeam own = threads.team();
      GradPart<T, known_side.value, tile.value, HostTeam, true>(own, task, work, shared.data).run();
    }
  });
  for (size_t i = 0; i < count; ++i) reduce_chunks<Acc>(i, count, task.plan.chunks, task.workspace);
  const int64_t weights = int64_t{map.channels} * task.strips.weights();
  for (int64_t i = 0; i < weights; ++i) {
    static_cast<T*>(maps[2])[i] = gather_strips<T>(i, task.strips, task.workspace);
  }
}

template <typename T, bool kGrad>
void strips(const MapSizes& map, const Pattern& pattern, const Options& options, void** maps) {
  const Threads threads(256, options);
  std::vector<int> shared = scratch<int>(shift_add_scratch(pattern.sizes));
  ShiftAddTask<T> task = {map, pattern, 0, {}, {}};
  constexpr int kInputs = kGrad ? 3 : 1;
  for (int i = 0; i < kInputs; ++i) task.input[i] = static_cast<const T*>(maps[i]);
  for (int i = 0; i < 4 - kInputs; ++i) task.output[i] = static_cast<T*>(maps[kInputs + i]);
  const int64_t positions = kGrad ? task.conv_size() : map.plane_size();
  task.strips = static_cast<int>((positions + 255) / 256);
  const int64_t all = map.planes() * (kGrad ? pattern.sizes.groups : 1) * task.strips;
  for (int64_t work = 0; work < all; ++work) {
    if (kGrad) {
      shift_add_grad_strip<T>(threads.team(), work, task, shared.data());
    } else {
      shift_add_strip<T>(threads.team(), work, task, shared.data());
    }
  }
}

template <typename T>
int call(const char* name, const MapSizes& map, const Pattern& pattern, const Options& options,
         void** maps) {
  using Program = void (*)(const MapSizes&, const Pattern&, const Options&, void**);
  const struct {
    const char* name;
    Program program;
  } programs[] = {
      {"conv", conv<T>},
      {"grad_input", grad_input<T>},
      {"grad_weight", grad_weight<T>},
      {"cross", cross<T>},
      {"shift_add", strips<T, false>},
      {"shift_add_grad", strips<T, true>},
      {"depthwise", depthwise<T>},
      {"depthwise_grad", depthwise_grad<T>},
  };
  for (const auto& each : programs) {
    if (std::strcmp(each.name, name) != 0) continue;
    each.program(map, pattern, options, maps);
    return 0;
  }
  return 1;
}

}  // namespace
}  // namespace mmsw

extern "C" {

// Runs a program by its name; `bytes` tells the type: 8 float64, 4 float32, 2 bfloat16. `maps`
// holds the addresses of inputs and outputs in their order. Returns 0, or 1 for an unknown name.
int run_program(const char* name, int bytes, const mmsw::MapSizes* map,
                const mmsw::Pattern* pattern, const mmsw::Options* options, void** maps) {
  return bytes == 8   ? mmsw::call<double>(name, *map, *pattern, *options, maps)
         : bytes == 4 ? mmsw::call<float>(name, *map, *pattern, *options, maps)
                      : mmsw::call<mmsw::BFloat16>(name, *map, *pattern, *options, maps);
}

// Bytes of shared memory of one thread block of the forward pass, of the weight gradient and of the
// assembly, and the threads of the weight gradient.
void figures(const mmsw::MapSizes* map, const mmsw::PatternSizes* sizes, int value_bytes,
             int warp_slots, int64_t* results) {
  const mmsw::Cross cross = mmsw::cross_of_pattern(*sizes, false);
  const mmsw::GradPlan plan = mmsw::plan_grad(*map, *sizes, warp_slots, value_bytes);
  results[0] = int64_t{mmsw::plan_conv(*map, cross, value_bytes).shared_values} * value_bytes;
  results[1] = int64_t{plan.shared_values} * value_bytes;
  results[2] = mmsw::pattern_scratch(*sizes) * static_cast<int64_t>(sizeof(int));
  results[3] = plan.threads();
}
}
