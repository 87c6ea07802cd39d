// Depthwise convolution with a kernel of any size, and its gradients, on CUDA.
//
// Both are linear in each of their tensors, so the gradient of every gradient is one of them again.
// mmsw/ops/depthwise_library.py tells compilers of the shapes.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAException.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <initializer_list>

#include "../checks.h"
#include "tensors.h"

namespace mmsw {
namespace {

DepthwiseSizes checked(const Tensor& map, const char* name, int64_t height, int64_t width,
                       int64_t side) {
  check_floating(map, name);
  TORCH_CHECK_VALUE(map.dim() == 4 && map.size(1) >= 1 && map.size(2) >= 1 && map.size(3) >= 1,
                    name, " must be [B, C, H, W] with C, H, W >= 1, got ", map.sizes());
  constexpr int64_t most = int64_t{1} << 15;  // the number of weights fits into 32 bits
  TORCH_CHECK_VALUE(height >= 1 && width >= 1 && height < most && width < most,
                    "a kernel must have sides from 1 to 2**15 - 1 on CUDA, got ", height, " x ",
                    width, "; use backend='torch'");
  TORCH_CHECK_VALUE(side >= 1 && side % 2 == 1, "small_kernel must be odd, got ", side);
  const int64_t longest = std::max(height, width) | 1;
  return {static_cast<int>(height), static_cast<int>(width),
          static_cast<int>(std::min(side, longest))};
}

void check_runs(const MapSizes& map, const DepthwiseSizes& kernel, Dtype dtype) {
  check_limit(limit_depthwise(map, kernel, dtype), map, "a kernel of ", kernel.height, " x ",
              kernel.width, ", small_kernel ", kernel.side);
}

Tensor depthwise(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                 int64_t small_kernel, bool flipped) {
  TORCH_CHECK_VALUE(weight.dim() == 4, "weight must be [C, 1, M1, M2], got ", weight.sizes());
  const DepthwiseSizes kernel = checked(x, "x", weight.size(2), weight.size(3), small_kernel);
  check_fits(weight, "weight", x, {x.size(1), 1, weight.size(2), weight.size(3)});
  if (bias.has_value()) check_fits(*bias, "bias", x, {x.size(1)});
  const Tensor out = at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::Contiguous));
  if (x.size(0) == 0) return out;
  const c10::DeviceGuard guard(x.device());
  const Tensor in = x.contiguous(), weights = weight.contiguous();
  const Tensor added = bias.has_value() ? bias->contiguous() : Tensor();
  const MapSizes map = map_sizes(in, in.size(1));
  const Dtype dtype = dtype_of(in);
  check_runs(map, kernel, dtype);
  const Tensor scratch = workspace(workspace_depthwise(map, kernel, dtype), in);
  C10_CUDA_CHECK(launch_depthwise(map, dtype, in.const_data_ptr(), weights.const_data_ptr(),
                                  added.defined() ? added.const_data_ptr() : nullptr, kernel,
                                  flipped, out.mutable_data_ptr(), scratch.mutable_data_ptr(),
                                  stream()));
  return out;
}

Tensor depthwise_grad_weight(const Tensor& grad, const Tensor& x, int64_t height, int64_t width,
                             int64_t small_kernel) {
  const DepthwiseSizes kernel = checked(x, "x", height, width, small_kernel);
  check_fits(grad, "grad", x, x.sizes());
  if (x.size(0) == 0) return at::zeros({x.size(1), 1, height, width}, x.options());
  const c10::DeviceGuard guard(x.device());
  const Tensor in = x.contiguous(), grads = grad.contiguous();
  const MapSizes map = map_sizes(in, in.size(1));
  const Dtype dtype = dtype_of(in);
  check_runs(map, kernel, dtype);
  const Tensor found = at::empty({in.size(1), 1, height, width}, in.options());
  const Tensor scratch = workspace(workspace_depthwise_grad(map, kernel, dtype), in);
  C10_CUDA_CHECK(launch_depthwise_grad(map, dtype, grads.const_data_ptr(), in.const_data_ptr(),
                                       kernel, found.mutable_data_ptr(), scratch.mutable_data_ptr(),
                                       stream()));
  return found;
}

TORCH_LIBRARY_FRAGMENT(mmsw_cuda, library) {
  const auto def = [&](const char* schema) {
    library.def(torch::schema(schema), {at::Tag::pt2_compliant_tag});
  };
  def("depthwise_conv2d(Tensor x, Tensor weight, Tensor? bias, int small_kernel, bool flipped)"
      " -> Tensor");
  def("depthwise_conv2d_grad_weight(Tensor grad, Tensor x, int height, int width, int small_kernel)"
      " -> Tensor");
}

TORCH_LIBRARY_IMPL(mmsw_cuda, CUDA, library) {
  library.impl("depthwise_conv2d", &depthwise);
  library.impl("depthwise_conv2d_grad_weight", &depthwise_grad_weight);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Through the dispatcher, which finds kernel and derivative.
Tensor call_depthwise(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                      int64_t small_kernel, bool flipped) {
  static const auto handle = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mmsw_cuda::depthwise_conv2d", "")
                                 .typed<decltype(depthwise)>();
  return handle.call(x, weight, bias, small_kernel, flipped);
}

Tensor call_grad_weight(const Tensor& grad, const Tensor& x, int64_t height, int64_t width,
                        int64_t small_kernel) {
  static const auto handle = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mmsw_cuda::depthwise_conv2d_grad_weight", "")
                                 .typed<decltype(depthwise_grad_weight)>();
  return handle.call(grad, x, height, width, small_kernel);
}

struct Depthwise : torch::autograd::Function<Depthwise> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const OptionalTensor& bias, int64_t small_kernel, bool flipped) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["small_kernel"] = small_kernel;
    ctx->saved_data["flipped"] = flipped;
    ctx->saved_data["with_bias"] = bias.has_value();
    return call_depthwise(x, weight, bias, small_kernel, flipped);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &grad = grads[0];
    const int64_t side = ctx->saved_data["small_kernel"].toInt();
    const bool flipped = ctx->saved_data["flipped"].toBool();
    variable_list found(5);
    if (ctx->needs_input_grad(0)) {
      found[0] = call_depthwise(grad, weight, std::nullopt, side, !flipped);
    }
    if (ctx->needs_input_grad(1)) {  // of the turned kernel, map and gradient change places
      found[1] = call_grad_weight(flipped ? x : grad, flipped ? grad : x, weight.size(2),
                                  weight.size(3), side);
    }
    if (ctx->saved_data["with_bias"].toBool() && ctx->needs_input_grad(2)) {
      found[2] = grad.sum({0, 2, 3});
    }
    return found;
  }
};

struct DepthwiseGradWeight : torch::autograd::Function<DepthwiseGradWeight> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad, const Tensor& x, int64_t height,
                        int64_t width, int64_t small_kernel) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({grad, x});
    ctx->saved_data["small_kernel"] = small_kernel;
    return call_grad_weight(grad, x, height, width, small_kernel);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const int64_t side = ctx->saved_data["small_kernel"].toInt();
    variable_list found(5);
    if (ctx->needs_input_grad(0)) {
      found[0] = call_depthwise(saved[1], grads[0], std::nullopt, side, false);
    }
    if (ctx->needs_input_grad(1)) {
      found[1] = call_depthwise(saved[0], grads[0], std::nullopt, side, true);
    }
    return found;
  }
};

bool wants_gradient(std::initializer_list<Tensor> tensors) {
  bool any = false;
  for (const Tensor& tensor : tensors) any |= tensor.defined() && tensor.requires_grad();
  return any && at::GradMode::is_enabled();
}

Tensor differentiable_depthwise(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                                int64_t small_kernel, bool flipped) {
  if (wants_gradient({x, weight, bias.value_or(Tensor())})) {
    return Depthwise::apply(x, weight, bias, small_kernel, flipped);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return call_depthwise(x, weight, bias, small_kernel, flipped);
}

Tensor differentiable_grad_weight(const Tensor& grad, const Tensor& x, int64_t height,
                                  int64_t width, int64_t small_kernel) {
  if (wants_gradient({grad, x})) {
    return DepthwiseGradWeight::apply(grad, x, height, width, small_kernel);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return call_grad_weight(grad, x, height, width, small_kernel);
}

TORCH_LIBRARY_IMPL(mmsw_cuda, Autograd, library) {
  library.impl("depthwise_conv2d", &differentiable_depthwise);
  library.impl("depthwise_conv2d_grad_weight", &differentiable_grad_weight);
}

}  // namespace
}  // namespace mmsw
