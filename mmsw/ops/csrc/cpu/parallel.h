// How work is shared out: by planes, one (channel, samples of a frame) or one channel at a time, so
// results do not depend on the number of threads.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace mmsw {

// Runs work(item, scratch) for every item; threads take the next `grain` items as they get free.
template <typename Scratch, typename Work>
void for_each(int64_t items, int64_t grain, const Scratch& scratch, Work work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), (items + grain - 1) / grain);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    Scratch own(scratch);
    for (int64_t thread = begin; thread < end; ++thread) {
      for (int64_t item; (item = next.fetch_add(grain, std::memory_order_relaxed)) < items;) {
        for (const int64_t last = std::min(item + grain, items); item < last; ++item) {
          work(item, own);
        }
      }
    }
  });
}

// Runs work(row) for every row of a map [B, C, P] that is not empty.
template <typename Work>
void for_each_row(const at::Tensor& map, Work work) {
  constexpr int64_t values = 1 << 14;  // that a thread takes at once
  const int64_t grain = std::max<int64_t>(1, values / map.size(2));
  for_each(map.size(0) * map.size(1), grain, 0, [&](int64_t row, int) { work(row); });
}

}  // namespace mmsw
