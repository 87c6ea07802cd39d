// avx512 code for x86-64; empty elsewhere.
#if defined(__x86_64__)
#include "kernels.h"

#define MMSW_VECTOR_BYTES 64
#define MMSW_REGISTERS 32
#define MMSW_NAME "avx512"
#define MMSW_KERNELS avx512_kernels

// After the last include, so that no function of a library is compiled for this target.
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")
#endif
#include "plane_loops.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
