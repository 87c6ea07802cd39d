// avx2 code for x86-64; empty elsewhere.
#if defined(__x86_64__)
#include "kernels.h"

#define MMSW_VECTOR_BYTES 32
#define MMSW_REGISTERS 16
#define MMSW_NAME "avx2"
#define MMSW_KERNELS avx2_kernels

// After the last include, so that no function of a library is compiled for this target.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include "plane_loops.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
