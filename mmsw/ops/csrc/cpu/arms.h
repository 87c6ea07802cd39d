// The place where an arm is run over the maps of a frame.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cross_kernels.h"
#include "frame.h"

namespace mmsw {

// Whether the arm runs with fewer multiplications over planes like that of the frame. Never over
// several samples: a tile across two of them would round the small one as the large one is rounded.
template <typename T>
bool wins_reduced(const Frame<T>& frame, const BlockList<T>& arm) {
  if constexpr (std::is_same_v<T, float>) {
    return frame.samples() == 1 && arithmetic != Arithmetic::direct &&
           arm.reduced().wins(instruction_set->reduced, arm, frame.reduced(),
                              arithmetic == Arithmetic::always);
  }
  return false;
}

// out = init (or, when accumulating, out) + the arm over the transpose of the one map of `upright`,
// transposed back. `turned` is a frame for such transposes. False: the map is not finite and
// moderate, or the arm does not win; nothing was done.
template <typename T>
bool run_turned(const Frame<T>& upright, const Frame<T>& turned, const BlockList<T>& arm, T init,
                T* out, int64_t out_stride) {
  if constexpr (std::is_same_v<T, float>) {
    return wins_reduced(turned, arm) &&
           arm.reduced().run(instruction_set->reduced, upright.plane(), true, init, false, out,
                             out_stride, turned.reduced());
  }
  return false;
}

// out = init (or, when accumulating, out) + the arm over the maps of the frame, gaps included. Rows
// of `out` are `out_stride` elements apart; it must hold whole tiles.
template <typename T>
void run_arm(const Frame<T>& frame, const BlockList<T>& arm, int64_t side, T init, bool accumulate,
             T* out, int64_t out_stride) {
  if constexpr (std::is_same_v<T, float>) {
    if (wins_reduced(frame, arm) &&
        arm.reduced().run(instruction_set->reduced, frame.plane(), false, init, accumulate, out,
                          out_stride, frame.reduced())) {
      return;
    }
  }
  const auto& kernels = plane_kernels<T>();
  const auto map = frame.plane();
  kernels.correlate(map, arm.data(), arm.size(), side, init, accumulate, out, out_stride);
  for (const auto& end : arm.ends()) {
    kernels.add_taps(map, end.block, end.taps, side, out, out_stride);
  }
}

// Sums over the turned maps of a frame, on their way back.
template <typename T>
class TurnedSums {
 public:
  explicit TurnedSums(const Frame<T>& turned)
      : samples_(turned.samples()),
        pitch_(turned.pitch()),
        plane_(turned.plane()),
        stride_(sum_columns(plane_.width)),
        sums_(sum_rows(plane_.height) * stride_) {}

  void run(const Frame<T>& turned, const BlockList<T>& arm, int64_t side, T init) {
    run_arm(turned, arm, side, init, false, sums_.data(), stride_);
  }

  // Writes the upright map of every sample, `to_next` elements apart.
  template <typename S>
  void store(S* map, int64_t to_next, int64_t stride) const {
    const int64_t width = plane_.height, height = pitch_ - (pitch_ * samples_ - plane_.width);
    for (int64_t sample = 0; sample < samples_; ++sample) {
      Stored<S>::narrow_transposed(sums_.data() + sample * pitch_, stride_, width, height,
                                   map + sample * to_next, stride);
    }
  }

 private:
  int64_t samples_, pitch_;
  Plane<const T> plane_;
  int64_t stride_;
  std::vector<T> sums_;
};

// Sums over the maps of a frame, and their way to the maps of a tensor. Where a map is alone in its
// frame, stored as it is computed and made of whole tiles, the sums are made in place.
template <typename S>
class ArmOutput {
 public:
  using T = Computed<S>;

  ArmOutput(const MapSizes& maps, const Frame<T>& frame)
      : maps_(maps), samples_(frame.samples()), pitch_(frame.pitch()) {
    const int64_t columns = instruction_set->tile_columns * vector_lanes<T>();
    in_place_ = std::is_same_v<S, T> && samples_ == 1 && maps.width % columns == 0 &&
                maps.height % instruction_set->tile_rows == 0;
    stride_ = in_place_ ? maps.width : sum_columns(frame.plane().width);
    if (!in_place_) sums_.resize(sum_rows(maps.height) * stride_);
  }

  // From here on the sums are those of `map` and of the same channel in the samples that follow.
  void begin(S* map) {
    map_ = map;
    data_ = in_place_ ? reinterpret_cast<T*>(map) : sums_.data();
  }

  // Sums that are all the same.
  void fill(T value) { std::fill_n(data_, in_place_ ? maps_.area() : sums_.size(), value); }

  void run(const Frame<T>& frame, const BlockList<T>& arm, int64_t side, bool accumulate) {
    run_arm(frame, arm, side, T(0), accumulate, data_, stride_);
  }

  // Sums of the wide arm over an upright frame, without the detour over TurnedSums. False: nothing
  // was done.
  bool run_turned(FramePair<T>& frames, const BlockList<T>& arm, T init) {
    return mmsw::run_turned(frames.upright(), frames.turned(), arm, init, data_, stride_);
  }

  // The sums of a whole frame, for whoever makes them otherwise.
  T* data() { return data_; }
  int64_t stride() const { return stride_; }

  void take(const TurnedSums<T>& sums) { sums.store(data_, pitch_, stride_); }

  void store() {
    if (in_place_) return;
    for (int64_t sample = 0; sample < samples_; ++sample) {
      Stored<S>::narrow(data_ + sample * pitch_, stride_, maps_.height, maps_.width,
                        map_ + sample * maps_.to_next_sample(), maps_.width);
    }
  }

 private:
  MapSizes maps_;
  int64_t samples_, pitch_, stride_;
  bool in_place_;
  std::vector<T> sums_;
  S* map_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace mmsw
