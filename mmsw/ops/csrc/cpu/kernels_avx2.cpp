// avx2 code for x86-64; empty elsewhere.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels.h"

#define MMSW_VECTOR_BYTES 32
#define MMSW_REGISTERS 16
#define MMSW_F16C
#define MMSW_NAME "avx2"
#define MMSW_KERNELS avx2_kernels

// After the last include, so that no function of a library is compiled for this target.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include "plane_loops.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
