// Derivatives of the compiled operators, of any order: each is made of the same operators.
#include <ATen/FuncTorchTLS.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

#include "operators.h"

namespace mmsw {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// call_NAME(arguments) calls an operator through the dispatcher, which finds kernel and derivative.
#define MMSW_CALL(NAME)                                                                       \
  template <typename... Arguments>                                                            \
  auto call_##NAME(const Arguments&... arguments) {                                           \
    static const auto handle = c10::Dispatcher::singleton()                                   \
                                   .findSchemaOrThrow(MMSW_TEXT(MMSW_LIBRARY) "::" #NAME, "") \
                                   .typed<decltype(NAME)>();                                  \
    return handle.call(arguments...);                                                         \
  }
MMSW_EVERY_OPERATOR(MMSW_CALL)

variable_list as_list(const Outputs& outputs) {
  return {std::get<0>(outputs), std::get<1>(outputs), std::get<2>(outputs)};
}

Outputs as_outputs(const variable_list& list) { return {list[0], list[1], list[2]}; }

// What an operator gets beside the tensors that it is differentiable in.
struct Constants {
  OptionalTensor mask;
  Tensor shift_hv, identity_index;
  int64_t big_kernel, small_kernel;

  static constexpr size_t tensors = 3;
  void save(AutogradContext* ctx, variable_list& saved) const {
    saved.insert(saved.end(), {mask.value_or(Tensor()), shift_hv, identity_index});
    ctx->saved_data["big_kernel"] = big_kernel;
    ctx->saved_data["small_kernel"] = small_kernel;
  }
  static Constants load(AutogradContext* ctx, const variable_list& saved) {
    const Tensor* from = saved.data() + saved.size() - tensors;
    return {from[0].defined() ? OptionalTensor(from[0]) : OptionalTensor(), from[1], from[2],
            ctx->saved_data["big_kernel"].toInt(), ctx->saved_data["small_kernel"].toInt()};
  }
};
#define MMSW_PASS(constants) \
  constants.shift_hv, constants.identity_index, constants.big_kernel, constants.small_kernel

struct NoConstants {
  static constexpr size_t tensors = 0;
  void save(AutogradContext*, variable_list&) const {}
  static NoConstants load(AutogradContext*, const variable_list&) { return {}; }
};

// Which of the inputs of an operator a gradient is asked for.
struct Wanted {
  AutogradContext* ctx;
  bool operator[](size_t input) const { return ctx->needs_input_grad(input); }
  bool any(size_t count) const {
    for (size_t input = 0; input < count; ++input) {
      if ((*this)[input]) return true;
    }
    return false;
  }
};

// Whether torch.func differentiates, which takes no autograd function in C++.
bool is_transformed() {
  const auto& transforms = at::functorch::functorchTLSAccessor();
  if (!transforms) return false;
  try {
    transforms->checkSupportsCppAutogradFunction();
  } catch (const c10::Error&) {
    return true;
  }
  return false;
}

// An operator for autograd. A Rule has run(inputs, constants), gradients(grads, inputs, constants,
// wanted), one per input, and says whether the gradients depend on the inputs.
template <typename Rule, typename Fixed>
struct Differentiable : torch::autograd::Function<Differentiable<Rule, Fixed>> {
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, const Fixed& fixed) {
    const at::AutoDispatchBelowADInplaceOrView below;
    variable_list saved;
    if (Rule::needs_inputs) saved = inputs.vec();
    fixed.save(ctx, saved);
    ctx->save_for_backward(std::move(saved));
    return Rule::run(inputs, fixed);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    variable_list found = Rule::gradients(grads, saved, Fixed::load(ctx, saved), Wanted{ctx});
    found.resize(found.size() + 1);  // the constants have none
    return found;
  }

  static variable_list run(const variable_list& inputs, const Fixed& fixed) {
    bool wanted = false, forward_mode = false;
    for (const Tensor& input : inputs) {
      wanted |= input.requires_grad() && at::GradMode::is_enabled();
      forward_mode |= input._fw_grad(/*level=*/0).defined();
    }
    TORCH_CHECK(!forward_mode && (!wanted || !is_transformed()),
                "the compiled operators have no derivatives for torch.func and none in forward "
                "mode; use backend='torch'");
    if (wanted) return Differentiable::apply(at::TensorList(inputs), fixed);
    const at::AutoDispatchBelowADInplaceOrView below;
    return Rule::run(inputs, fixed);
  }
};

struct ShiftAdd {
  static constexpr bool needs_inputs = false;
  static variable_list run(at::TensorList in, const Constants& c) {
    return as_list(call_shift_add(in[0], MMSW_PASS(c)));
  }
  static variable_list gradients(const variable_list& grads, const variable_list&,
                                 const Constants& c, Wanted) {
    return {call_shift_add_grad(grads[0], grads[1], grads[2], MMSW_PASS(c))};
  }
};

struct ShiftAddGrad {
  static constexpr bool needs_inputs = false;
  static variable_list run(at::TensorList in, const Constants& c) {
    return {call_shift_add_grad(in[0], in[1], in[2], MMSW_PASS(c))};
  }
  static variable_list gradients(const variable_list& grads, const variable_list&,
                                 const Constants& c, Wanted) {
    return as_list(call_shift_add(grads[0], MMSW_PASS(c)));
  }
};

// The convolution is linear in the map and in the weight, so the gradient of each gradient is one
// of the same three operators. Small kernels that the mask turns off count as constants.
struct Conv {
  static constexpr bool needs_inputs = true;
  static variable_list run(at::TensorList in, const Constants& c) {
    return as_list(call_shift_wise_conv2d(in[0], in[1], c.mask, MMSW_PASS(c)));
  }
  static variable_list gradients(const variable_list& grads, const variable_list& in,
                                 const Constants& c, Wanted wanted) {
    variable_list found(2);
    if (wanted[0]) {
      found[0] = call_shift_wise_conv2d_grad_input(grads[0], grads[1], grads[2], in[1], c.mask,
                                                   MMSW_PASS(c));
    }
    if (wanted[1]) {
      found[1] = call_shift_wise_conv2d_grad_weight(grads[0], grads[1], grads[2], in[0], c.mask,
                                                    MMSW_PASS(c));
    }
    return found;
  }
};

struct GradInput {
  static constexpr bool needs_inputs = true;
  static variable_list run(at::TensorList in, const Constants& c) {
    return {call_shift_wise_conv2d_grad_input(in[0], in[1], in[2], in[3], c.mask, MMSW_PASS(c))};
  }
  static variable_list gradients(const variable_list& grads, const variable_list& in,
                                 const Constants& c, Wanted wanted) {
    variable_list found(3);
    if (wanted.any(3)) {
      found = as_list(call_shift_wise_conv2d(grads[0], in[3], c.mask, MMSW_PASS(c)));
    }
    found.push_back(wanted[3] ? call_shift_wise_conv2d_grad_weight(in[0], in[1], in[2], grads[0],
                                                                   c.mask, MMSW_PASS(c))
                              : Tensor());
    return found;
  }
};

struct GradWeight {
  static constexpr bool needs_inputs = true;
  static variable_list run(at::TensorList in, const Constants& c) {
    return {call_shift_wise_conv2d_grad_weight(in[0], in[1], in[2], in[3], c.mask, MMSW_PASS(c))};
  }
  static variable_list gradients(const variable_list& grads, const variable_list& in,
                                 const Constants& c, Wanted wanted) {
    const Tensor weight = c.mask ? at::where(c.mask->view({-1, 1, 1, 1}), grads[0], 0) : grads[0];
    variable_list found(3);
    if (wanted.any(3)) {
      found = as_list(call_shift_wise_conv2d(in[3], weight, c.mask, MMSW_PASS(c)));
    }
    found.push_back(wanted[3] ? call_shift_wise_conv2d_grad_input(in[0], in[1], in[2], weight,
                                                                  c.mask, MMSW_PASS(c))
                              : Tensor());
    return found;
  }
};

// Gradient of an arm [C, taps, N] that runs along the rows. oneDNN's is wrong where more than 15
// rows of padding are asked of it, so the rows are padded beforehand.
Tensor grad_of_arm(const Tensor& map, const Tensor& grad, const Tensor& arm) {
  const int64_t taps = arm.size(1), side = arm.size(2);
  const bool slow = map.is_cpu() && map.scalar_type() != at::kDouble;  // half types on the CPU
  const auto dtype = slow ? at::kFloat : map.scalar_type();
  const Tensor padded = at::constant_pad_nd(map.to(dtype), {0, 0, taps / 2, taps / 2});
  const auto found = at::convolution_backward(grad.to(dtype), padded, arm.to(dtype).unsqueeze(1),
                                              std::nullopt, {1, 1}, {0, side / 2}, {1, 1}, false,
                                              {0, 0}, map.size(1), {false, true, false});
  return std::get<1>(found).squeeze(1).to(arm.scalar_type());
}

// The gradient of the map runs through the flipped arms; those of the arms are plain operators.
struct Cross {
  static constexpr bool needs_inputs = true;
  static variable_list run(at::TensorList in, const NoConstants&) {
    return {call_cross_conv2d(in[0], in[1], in[2],
                              in.size() > 3 ? OptionalTensor(in[3]) : OptionalTensor())};
  }
  static variable_list gradients(const variable_list& grads, const variable_list& in,
                                 const NoConstants&, Wanted wanted) {
    const Tensor &grad = grads[0], &x = in[0], &wide = in[1], &tall = in[2];
    variable_list found(3);
    if (wanted[0])
      found[0] = call_cross_conv2d(grad, wide.flip({1, 2}), tall.flip({1, 2}), OptionalTensor());
    if (wanted[1]) found[1] = grad_of_arm(x.mT(), grad.mT(), wide);
    if (wanted[2]) found[2] = grad_of_arm(x, grad, tall);
    if (in.size() > 3) found.push_back(wanted[3] ? grad.sum({0, 2, 3}) : Tensor());
    return found;
  }
};

// The same signatures, for the Autograd key.
namespace differentiable {

template <typename Rule>
variable_list run(variable_list inputs, const OptionalTensor& mask, MMSW_TABLES) {
  return Differentiable<Rule, Constants>::run(inputs, {mask, MMSW_PASS_TABLES});
}

Outputs shift_add(const Tensor& conv_out, MMSW_TABLES) {
  return as_outputs(run<ShiftAdd>({conv_out}, {}, MMSW_PASS_TABLES));
}

Tensor shift_add_grad(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                      MMSW_TABLES) {
  return run<ShiftAddGrad>({grad_h, grad_v, grad_i}, {}, MMSW_PASS_TABLES)[0];
}

Outputs shift_wise_conv2d(const Tensor& x, const Tensor& weight, const OptionalTensor& mask,
                          MMSW_TABLES) {
  return as_outputs(run<Conv>({x, weight}, mask, MMSW_PASS_TABLES));
}

Tensor shift_wise_conv2d_grad_input(const Tensor& grad_h, const Tensor& grad_v,
                                    const Tensor& grad_i, const Tensor& weight,
                                    const OptionalTensor& mask, MMSW_TABLES) {
  return run<GradInput>({grad_h, grad_v, grad_i, weight}, mask, MMSW_PASS_TABLES)[0];
}

Tensor shift_wise_conv2d_grad_weight(const Tensor& grad_h, const Tensor& grad_v,
                                     const Tensor& grad_i, const Tensor& x,
                                     const OptionalTensor& mask, MMSW_TABLES) {
  return run<GradWeight>({grad_h, grad_v, grad_i, x}, mask, MMSW_PASS_TABLES)[0];
}

Tensor cross_conv2d(const Tensor& x, const Tensor& wide, const Tensor& tall,
                    const OptionalTensor& bias) {
  variable_list inputs{x, wide, tall};
  if (bias.has_value()) inputs.push_back(*bias);
  return Differentiable<Cross, NoConstants>::run(inputs, {})[0];
}

}  // namespace differentiable

TORCH_LIBRARY_IMPL(MMSW_LIBRARY, Autograd, library) {
#define MMSW_DERIVATIVE(NAME) library.impl(#NAME, &differentiable::NAME);
  MMSW_EVERY_OPERATOR(MMSW_DERIVATIVE)
}

}  // namespace
}  // namespace mmsw
