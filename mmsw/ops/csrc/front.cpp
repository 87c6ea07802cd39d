// The one checked front of the compiled operators: schemas, checks, autograd of any order.
//
// Compiled into the library of each backend, with MMSW_LIBRARY (mmsw_cpp, mmsw_cuda) and MMSW_KEY
// (CPU, CUDA). Kernels are registered under the key of the backend, derivatives under Autograd;
// what compilers need to know of the shapes stands in mmsw/ops/library.py.
#include <ATen/FuncTorchTLS.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torch/version.h>

#include <string>
#include <vector>

#include "backend.h"

#define MMSW_TEXT_OF(name) #name
#define MMSW_TEXT(name) MMSW_TEXT_OF(name)
#define MMSW_EXPAND(macro, ...) macro(__VA_ARGS__)

namespace mmsw {
namespace {

using at::IntArrayRef;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

// The tables of a pattern, as every operator gets them and passes them on.
#define MMSW_TABLES \
  const Tensor &shift_hv, const Tensor &identity_index, int64_t big_kernel, int64_t small_kernel
#define MMSW_PASS_TABLES shift_hv, identity_index, big_kernel, small_kernel

// ---- Checks ----

void check_floating(const Tensor& tensor, const char* name) {
  const auto dtype = tensor.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16,
      name, " must hold float32, float64, float16 or bfloat16, got ", dtype);
}

void check_device(const Tensor& tensor, const char* name, const Tensor& map) {
  TORCH_CHECK_VALUE(tensor.device() == map.device(), name, " is on ", tensor.device(),
                    ", the map on ", map.device(), "; move one of them with .to()");
}

// What goes with a map: its sizes follow from those of the map, the rest is the same.
void check_fits(const Tensor& tensor, const char* name, const Tensor& map, IntArrayRef sizes) {
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, name, " must be ", sizes, ", got ", tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == map.scalar_type(), name, " must hold ",
                   map.scalar_type(), " as the map does, got ", tensor.scalar_type());
  check_device(tensor, name, map);
}

void check_map(const Tensor& map, const char* name, int64_t channels, int64_t border = 0) {
  check_floating(map, name);
  TORCH_CHECK_VALUE(
      map.dim() == 4 && map.size(1) == channels && map.size(2) > border && map.size(3) > border,
      name, " must be [B, ", channels, ", H + ", border, ", W + ", border, "] with H, W >= 1, got ",
      map.sizes());
}

// Whether all shifts are those of a slot. `side` is odd, so it has an inverse modulo a power of
// two; times it, and unsigned, exactly the multiples of `side` below `groups * side` are below
// `groups`.
template <typename Signed, typename Unsigned>
bool are_shifts(const Tensor& table, const PatternSizes& sizes) {
  const auto side = static_cast<Unsigned>(sizes.side), count = static_cast<Unsigned>(sizes.groups);
  const auto largest = static_cast<Unsigned>(Signed{sizes.largest_shift()});
  Unsigned inverse = side;  // right in three bits; every round doubles them
  for (int round = 0; round < 5; ++round) inverse *= 2 - side * inverse;
  const Signed* shift = table.const_data_ptr<Signed>();
  bool good = true;
  for (int64_t i = 0; i < table.numel(); ++i) {
    good &= (largest - static_cast<Unsigned>(shift[i])) * inverse < count;
  }
  return good;
}

// Whether row `c` names groups of channel `c` only.
template <typename Integer>
bool are_groups(const Tensor& table, int64_t groups) {
  const Integer* picked = table.const_data_ptr<Integer>();
  const int64_t reps = table.size(1);
  bool good = true;
  for (int64_t i = 0; i < table.numel(); ++i) {
    const int64_t first = i / reps * groups;
    good &= picked[i] >= first && picked[i] < first + groups;
  }
  return good;
}

// The tables of a ShiftPattern in the types that backends read, and the pattern that they make.
struct Tables {
  Tensor shift, identity;
  Pattern pattern;

  const PatternSizes& sizes() const { return pattern.sizes; }
  int64_t channels() const { return pattern.channels; }
  int64_t kernels() const { return channels() * sizes().groups; }
  int64_t border() const { return 2 * sizes().margin(); }
};

// Slots and groups become places to read and write, so none of them may lie outside its channel.
void check_contents(const Tensor& shift, const Tensor& identity, const PatternSizes& sizes) {
  const bool good =
      (shift.scalar_type() == at::kInt ? are_shifts<int32_t, uint32_t>
                                       : are_shifts<int64_t, uint64_t>)(shift, sizes) &&
      (identity.scalar_type() == at::kInt ? are_groups<int32_t>
                                          : are_groups<int64_t>)(identity, sizes.groups);
  const int64_t largest = sizes.largest_shift();
  TORCH_CHECK_VALUE(good, "the tables hold no pattern: shifts must be ", largest, ", ",
                    largest - sizes.side, ", ... down to ",
                    largest - int64_t{sizes.groups - 1} * sizes.side,
                    ", identity groups must be of their channel; were they ever filled?");
}

Tables read_tables(const Tensor& map, MMSW_TABLES) {
  TORCH_CHECK_VALUE(small_kernel >= 1 && small_kernel % 2 == 1 && small_kernel <= big_kernel &&
                        big_kernel < (int64_t{1} << 30),
                    "small_kernel must be odd and 1 <= small_kernel <= big_kernel < 2**30, got ",
                    small_kernel, " and ", big_kernel);
  for (const Tensor* table : {&shift_hv, &identity_index}) {
    const char* name = table == &shift_hv ? "shift_hv" : "identity_index";
    TORCH_CHECK_TYPE(table->scalar_type() == at::kInt || table->scalar_type() == at::kLong, name,
                     " must hold int32 or int64, got ", table->scalar_type());
    check_device(*table, name, map);
  }
  TORCH_CHECK_VALUE(shift_hv.dim() == 2 && identity_index.dim() == 2 &&
                        identity_index.size(0) >= 1 && identity_index.size(1) >= 1,
                    "shift_hv must be [C * nk, 2 * R] and identity_index [C, R], got ",
                    shift_hv.sizes(), " and ", identity_index.sizes());
  const int64_t groups = (big_kernel + small_kernel - 1) / small_kernel;
  const int64_t channels = identity_index.size(0), reps = identity_index.size(1);
  TORCH_CHECK_VALUE(shift_hv.size(0) == channels * groups && shift_hv.size(1) == 2 * reps,
                    "shift_hv must be ", IntArrayRef({channels * groups, 2 * reps}),
                    " for identity_index ", identity_index.sizes(), " and ", groups,
                    " groups per channel, got ", shift_hv.sizes());
  const PatternSizes sizes{static_cast<int>(big_kernel), static_cast<int>(small_kernel),
                           static_cast<int>(groups), static_cast<int>(reps)};
  Tables tables{shift_hv.contiguous(), identity_index.contiguous(), {}};
  if (map.is_cpu()) check_contents(tables.shift, tables.identity, sizes);
  tables.shift = tables.shift.to(at::kInt);
  tables.identity = tables.identity.to(at::kLong);
  tables.pattern = {sizes, static_cast<int>(channels), tables.shift.const_data_ptr<int32_t>(),
                    tables.identity.const_data_ptr<int64_t>()};
  return tables;
}

void check_weight(const Tensor& weight, const Tensor& map, const Tables& tables) {
  const int64_t side = tables.sizes().side;
  check_fits(weight, "weight", map, {tables.kernels(), 1, side, side});
}

OptionalTensor ready_mask(const OptionalTensor& mask, const Tensor& map, const Tables& tables) {
  if (!mask.has_value()) return mask;
  TORCH_CHECK_TYPE(mask->scalar_type() == at::kBool, "mask must hold bool, got ",
                   mask->scalar_type());
  TORCH_CHECK_VALUE(mask->sizes() == IntArrayRef({tables.kernels()}), "mask must be [",
                    tables.kernels(), "], one value per small kernel, got ", mask->sizes());
  check_device(*mask, "mask", map);
  return mask->contiguous();
}

// Gradients of the three outputs, checked against the map that they are of.
Outputs ready_grads(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                    const Tensor& map) {
  check_fits(grad_h, "grad_h", map, map.sizes());
  check_fits(grad_v, "grad_v", map, map.sizes());
  check_fits(grad_i, "grad_i", map, map.sizes());
  return {grad_h.contiguous(), grad_v.contiguous(), grad_i.contiguous()};
}

// ---- Kernels ----

Outputs empty_outputs(IntArrayRef sizes, const Tensor& like) {
  return {at::empty(sizes, like.options()), at::empty(sizes, like.options()),
          at::empty(sizes, like.options())};
}

Outputs shift_add(const Tensor& conv_out, MMSW_TABLES) {
  const Tables tables = read_tables(conv_out, MMSW_PASS_TABLES);
  const int64_t border = tables.border();
  check_map(conv_out, "conv_out", tables.kernels(), border);
  if (conv_out.size(0) == 0) {
    return empty_outputs(
        {0, tables.channels(), conv_out.size(2) - border, conv_out.size(3) - border}, conv_out);
  }
  const c10::DeviceGuard guard(conv_out.device());
  return run_shift_add(conv_out.contiguous(), tables.pattern);
}

Tensor shift_add_grad(const Tensor& grad_h, const Tensor& grad_v, const Tensor& grad_i,
                      MMSW_TABLES) {
  const Tables tables = read_tables(grad_h, MMSW_PASS_TABLES);
  const int64_t border = tables.border();
  check_map(grad_h, "grad_h", tables.channels());
  const Outputs grads = ready_grads(grad_h, grad_v, grad_i, grad_h);
  if (grad_h.size(0) == 0) {
    return at::empty({0, tables.kernels(), grad_h.size(2) + border, grad_h.size(3) + border},
                     grad_h.options());
  }
  const c10::DeviceGuard guard(grad_h.device());
  return run_shift_add_grad(grads, tables.pattern);
}

Outputs shift_wise_conv2d(const Tensor& x, const Tensor& weight, const OptionalTensor& mask,
                          MMSW_TABLES) {
  const Tables tables = read_tables(x, MMSW_PASS_TABLES);
  check_map(x, "x", tables.channels());
  check_weight(weight, x, tables);
  ready_mask(mask, x, tables);  // only derivatives look at it
  if (x.size(0) == 0) return empty_outputs(x.sizes(), x);
  const c10::DeviceGuard guard(x.device());
  return run_conv(x.contiguous(), weight.contiguous(), tables.pattern);
}

Tensor shift_wise_conv2d_grad_input(const Tensor& grad_h, const Tensor& grad_v,
                                    const Tensor& grad_i, const Tensor& weight,
                                    const OptionalTensor& mask, MMSW_TABLES) {
  const Tables tables = read_tables(grad_h, MMSW_PASS_TABLES);
  check_map(grad_h, "grad_h", tables.channels());
  const Outputs grads = ready_grads(grad_h, grad_v, grad_i, grad_h);
  check_weight(weight, grad_h, tables);
  ready_mask(mask, grad_h, tables);
  if (grad_h.size(0) == 0) return at::empty(grad_h.sizes(), grad_h.options());
  const c10::DeviceGuard guard(grad_h.device());
  return run_grad_input(grads, weight.contiguous(), tables.pattern);
}

Tensor shift_wise_conv2d_grad_weight(const Tensor& grad_h, const Tensor& grad_v,
                                     const Tensor& grad_i, const Tensor& x,
                                     const OptionalTensor& mask, MMSW_TABLES) {
  const Tables tables = read_tables(x, MMSW_PASS_TABLES);
  check_map(x, "x", tables.channels());
  const Outputs grads = ready_grads(grad_h, grad_v, grad_i, x);
  const OptionalTensor kept = ready_mask(mask, x, tables);
  const c10::DeviceGuard guard(x.device());
  if (x.size(0) == 0) {
    return at::zeros({tables.kernels(), 1, small_kernel, small_kernel}, x.options());
  }
  return run_grad_weight(grads, x.contiguous(), kept, tables.pattern);
}

Tensor cross_conv2d(const Tensor& x, const Tensor& wide, const Tensor& tall,
                    const OptionalTensor& bias) {
  check_floating(x, "x");
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(1) >= 1 && x.size(2) >= 1 && x.size(3) >= 1,
                    "x must be [B, C, H, W] with C, H, W >= 1, got ", x.sizes());
  const int64_t channels = x.size(1);
  for (const Tensor* arm : {&wide, &tall}) {
    const char* name = arm == &wide ? "wide" : "tall";
    TORCH_CHECK_VALUE(arm->dim() == 3 && arm->size(0) == channels && arm->size(1) % 2 == 1 &&
                          arm->size(2) % 2 == 1 && arm->size(2) == wide.size(2),
                      name, " must be [", channels,
                      ", taps, N] with odd taps and N, N the same for both arms, got ",
                      arm->sizes());
    check_fits(*arm, name, x, arm->sizes());
  }
  if (bias.has_value()) check_fits(*bias, "bias", x, {channels});
  if (x.size(0) == 0) return at::empty(x.sizes(), x.options());
  const c10::DeviceGuard guard(x.device());
  return run_cross(x.contiguous(), wide.contiguous(), tall.contiguous(),
                   bias.has_value() ? OptionalTensor(bias->contiguous()) : bias);
}

// ---- Derivatives ----

// call_NAME(arguments) calls an operator through the dispatcher, which finds kernel and derivative.
#define MMSW_CALL(NAME)                                                                       \
  template <typename... Arguments>                                                            \
  auto call_##NAME(const Arguments&... arguments) {                                           \
    static const auto handle = c10::Dispatcher::singleton()                                   \
                                   .findSchemaOrThrow(MMSW_TEXT(MMSW_LIBRARY) "::" #NAME, "") \
                                   .typed<decltype(NAME)>();                                  \
    return handle.call(arguments...);                                                         \
  }
MMSW_CALL(shift_add)
MMSW_CALL(shift_add_grad)
MMSW_CALL(shift_wise_conv2d)
MMSW_CALL(shift_wise_conv2d_grad_input)
MMSW_CALL(shift_wise_conv2d_grad_weight)
MMSW_CALL(cross_conv2d)

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

// The same signatures as the kernels, for the Autograd key.
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

// ---- Registration ----

std::string compiled_for_torch() { return TORCH_VERSION; }

#define MMSW_EVERY_OPERATOR(DO)     \
  DO(shift_add)                     \
  DO(shift_add_grad)                \
  DO(shift_wise_conv2d)             \
  DO(shift_wise_conv2d_grad_input)  \
  DO(shift_wise_conv2d_grad_weight) \
  DO(cross_conv2d)

void define(torch::Library& library) {
  const std::string tables =
      "Tensor shift_hv, Tensor identity_index, int big_kernel, int small_kernel)";
  const std::string grads = "(Tensor grad_h, Tensor grad_v, Tensor grad_i, ";
  const std::string outputs = " -> (Tensor, Tensor, Tensor)";
  const auto def = [&](const std::string& schema) {
    library.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
  };
  def("shift_add(Tensor conv_out, " + tables + outputs);
  def("shift_add_grad" + grads + tables + " -> Tensor");
  def("shift_wise_conv2d(Tensor x, Tensor weight, Tensor? mask, " + tables + outputs);
  def("shift_wise_conv2d_grad_input" + grads + "Tensor weight, Tensor? mask, " + tables +
      " -> Tensor");
  def("shift_wise_conv2d_grad_weight" + grads + "Tensor x, Tensor? mask, " + tables + " -> Tensor");
  def("cross_conv2d(Tensor x, Tensor wide, Tensor tall, Tensor? bias) -> Tensor");
  library.def("compiled_for_torch", &compiled_for_torch);
}

// One more round of expansion: the macros of torch paste and quote the names that they get.
MMSW_EXPAND(TORCH_LIBRARY, MMSW_LIBRARY, library) { define(library); }

TORCH_LIBRARY_IMPL(MMSW_LIBRARY, MMSW_KEY, library) {
#define MMSW_KERNEL(NAME) library.impl(#NAME, &NAME);
  MMSW_EVERY_OPERATOR(MMSW_KERNEL)
}

TORCH_LIBRARY_IMPL(MMSW_LIBRARY, Autograd, library) {
#define MMSW_DERIVATIVE(NAME) library.impl(#NAME, &differentiable::NAME);
  MMSW_EVERY_OPERATOR(MMSW_DERIVATIVE)
}

}  // namespace
}  // namespace mmsw
