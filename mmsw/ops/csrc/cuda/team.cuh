// The threads of one CUDA thread block, and where they run.
//
// Every kernel of this backend is a program of a `Team`: it runs phases with
// `team.each_thread(phase)`. On the GPU a phase is executed by the thread itself and ends with a
// barrier; the tests run the same phases in a loop over the threads. So the index mathematics and
// the loops over tiles are the same source in both places.
#pragma once

#include "../pattern.h"

#ifdef __CUDACC__
#define MMSW_DEVICE __device__ __forceinline__
#define MMSW_UNROLL _Pragma("unroll")
#define MMSW_NO_UNROLL _Pragma("unroll 1")
#else
#include <vector>
#define MMSW_DEVICE inline
#define MMSW_UNROLL
#define MMSW_NO_UNROLL
#endif

namespace mmsw {

constexpr int kWarp = 32;

MMSW_HOST_DEVICE int min_of(int a, int b) { return a < b ? a : b; }
MMSW_HOST_DEVICE int max_of(int a, int b) { return a > b ? a : b; }
MMSW_HOST_DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
MMSW_HOST_DEVICE bool in_range(int index, int length) {
  return static_cast<unsigned>(index) < static_cast<unsigned>(length);
}

// A division of numbers that are not negative. 64-bit divisions are calls of a hundred
// instructions.
struct Split {
  int64_t quotient, rest;
};
MMSW_HOST_DEVICE Split split(int64_t number, int64_t by) {
  if ((number | by) >> 32 != 0) return {number / by, number % by};
  const auto small = static_cast<uint32_t>(number), divisor = static_cast<uint32_t>(by);
  return {small / divisor, small % divisor};
}

// Lowest and highest bit of a word that is not zero, how many are set, the `count` lowest ones set.
MMSW_HOST_DEVICE int lowest_bit(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __ffs(static_cast<int>(word)) - 1;
#else
  return __builtin_ctz(word);
#endif
}
MMSW_HOST_DEVICE int highest_bit(uint32_t word) {
#ifdef __CUDA_ARCH__
  return 31 - __clz(static_cast<int>(word));
#else
  return 31 - __builtin_clz(word);
#endif
}
MMSW_HOST_DEVICE int count_bits(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}
MMSW_HOST_DEVICE uint32_t low_bits(int count) {
  return count >= 32 ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
}

// The type that sums are kept in.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};

// Between the type of a map and that of its sums; the half types have their own in dispatch.cuh,
// because extensions of torch are built without the implicit conversions of CUDA's headers.
template <typename T>
struct Convert {
  using Acc = typename Accumulator<T>::type;
  MMSW_HOST_DEVICE static Acc load(T value) { return static_cast<Acc>(value); }
  MMSW_HOST_DEVICE static T store(Acc value) { return static_cast<T>(value); }
};

// Neighbouring values that one instruction moves.
template <typename V, int kCount>
struct alignas(sizeof(V) * kCount) Pack {
  V values[kCount];
};

template <int kCount, typename V>
MMSW_HOST_DEVICE Pack<V, kCount> load_pack(const V* source) {
  return *reinterpret_cast<const Pack<V, kCount>*>(source);
}

// Loads an even number of values in twos.
template <int kCount, typename V>
MMSW_DEVICE void load_pairs(const V* source, V (&values)[kCount]) {
  MMSW_UNROLL
  for (int i = 0; i < kCount; i += 2) {
    const Pack<V, 2> two = load_pack<2>(source + i);
    values[i] = two.values[0];
    values[i + 1] = two.values[1];
  }
}

#ifdef __CUDACC__

struct DeviceTeam {
  // A value that every thread has for itself and keeps from phase to phase.
  template <typename V>
  struct PerThread {
    V value;
    __device__ __forceinline__ explicit PerThread(const DeviceTeam&) {}
    __device__ __forceinline__ V& operator[](int) { return value; }
  };

  __device__ __forceinline__ int threads() const { return static_cast<int>(blockDim.x); }

  template <typename Phase>
  __device__ __forceinline__ void each_thread(Phase phase) const {
    phase(static_cast<int>(threadIdx.x));
    __syncthreads();
  }
};

#else

struct HostTeam {
  int thread_count;
  const int* order = nullptr;  // of the threads; nullptr: ascending

  template <typename V>
  struct PerThread {
    std::vector<V> values;
    explicit PerThread(const HostTeam& team) : values(team.thread_count) {}
    V& operator[](int thread) { return values[thread]; }
  };

  int threads() const { return thread_count; }

  template <typename Phase>
  void each_thread(Phase phase) const {
    for (int i = 0; i < thread_count; ++i) phase(order == nullptr ? i : order[i]);
  }
};

#endif

}  // namespace mmsw
