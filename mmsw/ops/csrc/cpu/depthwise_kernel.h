// A depthwise kernel of any size, ready to run over the maps of one channel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "arms.h"

namespace mmsw {

// M1 x M2 weights and where the first of them lies from the output. Of an even side there is one
// tap more after the centre than before it, or, flipped for the gradient of the map, before it.
struct KernelSizes {
  int64_t height, width;
  bool flipped;

  int64_t count() const { return height * width; }
  int64_t first_row() const { return -(flipped ? height / 2 : (height - 1) / 2); }
  int64_t first_column() const { return -(flipped ? width / 2 : (width - 1) / 2); }
  // Columns to either side that meet a map of this width.
  int64_t reach(int64_t map_width) const { return std::min(width / 2, map_width - 1); }
  bool is_wide() const { return width > height; }
  int64_t long_side() const { return std::max(height, width); }
  int64_t short_side() const { return std::min(height, width); }
  // Whether it is an arm, centred, that ReducedArm can run.
  bool is_arm() const {
    return (short_side() == 3 || short_side() == 5) && long_side() > short_side() &&
           long_side() % 2 == 1;
  }
};

template <typename S>
class DepthwiseKernel {
 public:
  using T = Computed<S>;

  // `taps`: rows of a strip.
  DepthwiseKernel(const KernelSizes& sizes, const MapSizes& maps, int64_t taps)
      : sizes_(sizes),
        maps_(maps),
        taps_(std::min<int64_t>(taps, kMostTaps)),
        memory_(sizes.is_wide() ? maps.width : maps.height,
                sizes.is_wide() ? maps.height : maps.width, sizes.short_side()) {}

  void use(const S* weight, int64_t next) {
    if (channel_ == next) return;
    channel_ = next;
    const int64_t count = sizes_.count();
    weights_.resize(count);
    Stored<S>::widen(weight + next * count, count, 1, count, weights_.data(), count);
    if (sizes_.flipped) std::reverse(weights_.begin(), weights_.end());
    list_strips();
    if (std::is_same_v<T, float> && sizes_.is_arm()) make_arm();
  }

  // out = init + the kernel over the maps of the frame.
  void run(const Frame<T>& frame, T init, T* out, int64_t out_stride) {
    if (run_reduced(frame, init, out, out_stride)) return;
    plane_kernels<T>().correlate_strips(frame.plane(), strips_.data(),
                                        static_cast<int64_t>(strips_.size()), sizes_.width, init,
                                        out, out_stride);
  }

 private:
  // The runs of columns, strip by strip, that hold a weight and meet the map.
  void list_strips() {
    strips_.clear();
    const int64_t first_row = sizes_.first_row(), first_column = sizes_.first_column();
    const int64_t from = std::max<int64_t>(0, 1 - maps_.width - first_column);
    const int64_t to = std::min(sizes_.width, maps_.width - first_column);
    for (int64_t tap = 0; tap < sizes_.height; tap += taps_) {
      const int64_t taps = std::min(taps_, sizes_.height - tap), row = first_row + tap;
      if (row >= maps_.height || row + taps <= 1 - maps_.height) continue;
      const T* weight = weights_.data() + tap * sizes_.width;
      for (int64_t n = from; n < to;) {
        while (n < to && !is_used(weight + n, taps)) ++n;
        const int64_t begin = n;
        while (n < to && is_used(weight + n, taps)) ++n;
        if (n > begin)
          strips_.push_back({row, first_column + begin, taps, n - begin, weight + begin});
      }
    }
  }

  bool is_used(const T* weight, int64_t taps) const {  // NaN is not zero
    bool used = false;
    for (int64_t tap = 0; tap < taps; ++tap) used |= weight[tap * sizes_.width] != T(0);
    return used;
  }

  // The kernel as an arm whose taps run along its long side.
  void make_arm() {
    const int64_t taps = sizes_.long_side(), side = sizes_.short_side();
    T* arm = arm_.arm(taps, side);
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t n = 0; n < side; ++n) {
        *arm++ = weights_[sizes_.is_wide() ? n * taps + tap : tap * side + n];
      }
    }
    arm_.list_taps(taps, side);
  }

  // Fewer multiplications, see reduced.h. Never over several samples, as in `wins_reduced`. False:
  // it does not win, or the map is not finite and moderate; nothing was done.
  bool run_reduced(const Frame<T>& frame, T init, T* out, int64_t out_stride) {
    if constexpr (std::is_same_v<T, float>) {
      if (!sizes_.is_arm() || frame.samples() > 1 || arithmetic == Arithmetic::direct) return false;
      const auto& kernels = instruction_set->reduced;
      return arm_.reduced().wins(kernels, arm_, memory_, arithmetic == Arithmetic::always) &&
             arm_.reduced().run(kernels, frame.plane(), sizes_.is_wide(), init, false, out,
                                out_stride, memory_);
    }
    return false;
  }

  KernelSizes sizes_;
  MapSizes maps_;
  int64_t taps_;
  int64_t channel_ = -1;
  std::vector<T> weights_;
  std::vector<Strip<T>> strips_;
  BlockList<T> arm_;
  ReducedMemory memory_;
};

}  // namespace mmsw
