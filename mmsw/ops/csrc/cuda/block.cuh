// How one thread block runs, and where it runs.
//
// Every kernel of this backend is a "block program": a function template over a `Block` that runs
// phases with `block.each_thread(phase)`. On the GPU a phase is executed by the thread itself and
// ends with a barrier; the host check runs the same phases in a loop over the threads. So the index
// mathematics and the tile loops are the same source in both places.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MMSW_HOST_DEVICE __host__ __device__ __forceinline__
#define MMSW_DEVICE __device__ __forceinline__
#define MMSW_UNROLL _Pragma("unroll")
#define MMSW_NO_UNROLL _Pragma("unroll 1")
#else
#include <vector>
#define MMSW_HOST_DEVICE inline
#define MMSW_DEVICE inline
#define MMSW_UNROLL
#define MMSW_NO_UNROLL
#endif

namespace mmsw {

constexpr int kWarp = 32;

MMSW_HOST_DEVICE int min_of(int a, int b) { return a < b ? a : b; }
MMSW_HOST_DEVICE int max_of(int a, int b) { return a > b ? a : b; }
MMSW_HOST_DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }

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

#ifdef __CUDACC__

struct DeviceBlock {
  // A value that every thread has for itself and keeps from phase to phase.
  template <typename V>
  struct PerThread {
    V value;
    __device__ __forceinline__ explicit PerThread(const DeviceBlock&) {}
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

struct HostBlock {
  int thread_count;

  template <typename V>
  struct PerThread {
    std::vector<V> values;
    explicit PerThread(const HostBlock& block) : values(block.thread_count) {}
    V& operator[](int thread) { return values[thread]; }
  };

  int threads() const { return thread_count; }

  template <typename Phase>
  void each_thread(Phase phase) const {
    for (int thread = 0; thread < thread_count; ++thread) phase(thread);
  }
};

#endif

}  // namespace mmsw
