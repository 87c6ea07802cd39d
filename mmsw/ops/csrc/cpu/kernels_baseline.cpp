// Code for what every machine of an architecture has: SSE2 on x86-64, NEON on aarch64.
#include "kernels.h"

#define MMSW_VECTOR_BYTES 16
#if defined(__aarch64__)
#define MMSW_REGISTERS 32
#else
#define MMSW_REGISTERS 16
#endif
#define MMSW_NAME "baseline"
#define MMSW_KERNELS baseline_kernels
#include "plane_loops.h"
