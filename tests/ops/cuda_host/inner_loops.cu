// The two kernels of N = 3 in float32, to be compiled and disassembled by themselves.
#include "conv.cuh"
#include "grad_weight.cuh"

namespace mmsw {

template __global__ void conv_kernel<float, 3, 32>(const __grid_constant__ ConvTask<float>);
template __global__ void grad_weight_kernel<float, 3, 32>(const __grid_constant__ GradTask<float>);

}  // namespace mmsw
