// Maps inside zeros, converted to what is computed in: what the loops over planes read.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "instruction_sets.h"
#include "reduced.h"

namespace mmsw {

// The maps of a tensor [B, C, H, W].
struct MapSizes {
  int64_t batch, channels, height, width;

  int64_t area() const { return height * width; }
  int64_t at(int64_t sample, int64_t channel) const {
    return (sample * channels + channel) * area();
  }
  int64_t to_next_sample() const { return channels * area(); }
};

inline MapSizes map_sizes(const at::Tensor& maps) {
  return {maps.size(0), maps.size(1), maps.size(2), maps.size(3)};
}

// How many samples to lay side by side in one frame, with the zeros that their neighbours need
// between them, `gap` columns: small maps fill whole vectors only together. A divisor of the batch.
inline int64_t samples_side_by_side(const MapSizes& maps, int64_t gap, int64_t lanes) {
  const auto cost = [&](int64_t samples, int64_t length) {  // of a sample; wide tiles run best
    const int64_t vectors = (samples * (length + gap) - gap + lanes - 1) / lanes;
    return (8 * vectors + vectors % 2) * 8 / samples;
  };
  int64_t best = 1;
  for (int64_t samples = 2; samples <= 8; samples *= 2) {
    if (maps.batch % samples != 0 || samples * std::max(maps.height, maps.width) > 64) break;
    const int64_t before = cost(best, maps.width) + cost(best, maps.height);
    if (cost(samples, maps.width) + cost(samples, maps.height) < before) best = samples;
  }
  return best;
}

// The same for kernels of `side` columns.
inline int64_t samples_per_frame(const MapSizes& maps, int64_t side, int64_t lanes) {
  return samples_side_by_side(maps, side / 2, lanes);
}

// Maps of one channel side by side in a frame of zeros. Only the maps are ever written, so the
// frame stays zero. Kernels reach `reach` columns to either side.
template <typename T>
class Frame {
 public:
  Frame(int64_t samples, int64_t height, int64_t width, int64_t side)
      : Frame(samples, height, width, side, side / 2) {}

  // `side` is that of the blocks, or 0 without any.
  Frame(int64_t samples, int64_t height, int64_t width, int64_t side, int64_t reach)
      : samples_(samples),
        height_(height),
        width_(width),
        pitch_(width + reach),
        reduced_(height, samples * pitch_ - gap(), side) {
    const int64_t line = 64 / sizeof(T);
    left_ = frame_left(2 * reach);
    rows_ = frame_rows(side);
    const int64_t right = frame_right(std::max(side, reach));
    int64_t lines = (left_ + samples * pitch_ + right + line - 1) / line;
    lines += 1 - lines % 2;  // an odd number of cache lines spreads the rows over the cache's sets
    stride_ = lines * line;
    memory_.assign((height + 2 * rows_) * stride_ + line, T(0));
  }

  // Takes one map per sample, `to_next` elements apart.
  template <typename S>
  void copy(const S* map, int64_t to_next) {
    for (int64_t sample = 0; sample < samples_; ++sample) {
      Stored<S>::widen(map + sample * to_next, width_, height_, width_, origin() + sample * pitch_,
                       stride_);
    }
  }

  // Takes the transposes of maps of `width x height`.
  template <typename S>
  void copy_transposed(const S* map, int64_t to_next) {
    for (int64_t sample = 0; sample < samples_; ++sample) {
      Stored<S>::widen_transposed(map + sample * to_next, height_, width_, height_,
                                  origin() + sample * pitch_, stride_);
    }
  }

  // All maps as one, with the zeros between them.
  Plane<const T> plane() const {
    return {const_cast<Frame*>(this)->origin(), stride_, height_, samples_ * pitch_ - gap()};
  }
  int64_t samples() const { return samples_; }
  int64_t pitch() const { return pitch_; }
  ReducedMemory& reduced() const { return reduced_; }

 private:
  int64_t gap() const { return pitch_ - width_; }
  T* origin() {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    const int64_t skip = (64 - address % 64) % 64 / sizeof(T);
    return memory_.data() + skip + rows_ * stride_ + left_;
  }

  int64_t samples_, height_, width_, pitch_, left_, rows_, stride_;
  mutable ReducedMemory reduced_;  // what running an arm over `plane()` needs
  std::vector<T> memory_;
};

// A frame for upright maps and one for transposed ones; of square maps both are the same memory.
template <typename T>
class FramePair {
 public:
  FramePair(int64_t samples, const MapSizes& maps, int64_t side)
      : upright_(samples, maps.height, maps.width, side) {
    if (maps.height != maps.width) turned_.emplace(samples, maps.width, maps.height, side);
  }

  Frame<T>& upright() { return upright_; }
  Frame<T>& turned() { return turned_ ? *turned_ : upright_; }

 private:
  Frame<T> upright_;
  std::optional<Frame<T>> turned_;
};

}  // namespace mmsw
