// The choice of an instruction set and of the arithmetic, for the whole process.
#include "instruction_sets.h"

#include <torch/library.h>

#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace mmsw {
namespace {

#if defined(__x86_64__)
bool has_f16c() {  // not every compiler knows it as a feature to ask for
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
#endif

const InstructionSet* find_instruction_set(const std::string& name) {
#if defined(__x86_64__)
  const bool best = name == "best";
  if ((best || name == "avx512") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    return &avx512_kernels();
  }
  if ((best || name == "avx2") && has_f16c() && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma")) {
    return &avx2_kernels();
  }
#endif
  return name == "best" || name == "baseline" ? &baseline_kernels() : nullptr;
}

std::string current_instruction_set() { return instruction_set->name; }

bool set_instruction_set(std::string name) {
  const InstructionSet* found = find_instruction_set(name);
  if (found != nullptr) instruction_set = found;
  return found != nullptr;
}

constexpr const char* kArithmetics[] = {"direct", "reduced", "always"};

std::string current_arithmetic() { return kArithmetics[static_cast<int>(arithmetic)]; }

bool set_arithmetic(std::string name) {
  for (int i = 0; i < 3; ++i) {
    if (name != kArithmetics[i]) continue;
    arithmetic = static_cast<Arithmetic>(i);
    return true;
  }
  return false;
}

TORCH_LIBRARY_FRAGMENT(mmsw_cpp, library) {
  library.def("instruction_set", &current_instruction_set);
  library.def("set_instruction_set", &set_instruction_set);
  library.def("arithmetic", &current_arithmetic);
  library.def("set_arithmetic", &set_arithmetic);
}

}  // namespace

const InstructionSet* instruction_set = find_instruction_set("best");
Arithmetic arithmetic = Arithmetic::reduced;

}  // namespace mmsw
