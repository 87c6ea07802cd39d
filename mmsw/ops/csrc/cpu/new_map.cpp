// Memory for results. A page that is touched for the first time costs a fault and is filled with
// zeros by the system, a fifth of the time of the fused operator. So large maps lie on large pages,
// and some of those that were freed last are kept for the next call.
#include "new_map.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>

#if defined(__linux__)
#include <c10/core/Allocator.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <new>
#endif

namespace mmsw {

#if defined(__linux__) && defined(MADV_FREE) && defined(MADV_HUGEPAGE)
namespace {

constexpr size_t kLargePage = size_t(1) << 21;
constexpr size_t kLargeMap = size_t(1) << 20;    // what is smaller is left to torch
constexpr size_t kMostKept = size_t(128) << 20;  // bytes

struct Block {
  void* data;
  size_t size;
};

// Freed blocks, the oldest one first. The system may take their pages whenever it runs short.
class Kept {
 public:
  // A block of just this size, or none.
  Block take(size_t size) {
    Block found{nullptr, size};
    if (busy_.test_and_set(std::memory_order_acquire)) return found;  // nobody waits
    for (int i = count_; i-- > 0;) {
      if (blocks_[i].size == size) {
        found = remove(i);
        break;
      }
    }
    busy_.clear(std::memory_order_release);
    return found;
  }

  void put(Block block) {
    if (block.size > kMostKept || busy_.test_and_set(std::memory_order_acquire)) {
      return std::free(block.data);
    }
    while (count_ == kMostBlocks || bytes_ + block.size > kMostKept) std::free(remove(0).data);
    madvise(block.data, block.size, MADV_FREE);
    blocks_[count_++] = block;
    bytes_ += block.size;
    busy_.clear(std::memory_order_release);
  }

 private:
  static constexpr int kMostBlocks = 16;

  Block remove(int at) {
    const Block block = blocks_[at];
    for (--count_; at < count_; ++at) blocks_[at] = blocks_[at + 1];
    bytes_ -= block.size;
    return block;
  }

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  Block blocks_[kMostBlocks];
  int count_ = 0;
  size_t bytes_ = 0;
};

Kept kept;  // nothing to destroy: maps are freed after the end of main, too

void give_back(void* context) {
  Block* const block = static_cast<Block*>(context);
  c10::reportMemoryUsageToProfiler(block->data, -static_cast<int64_t>(block->size), 0, 0,
                                   c10::Device(c10::DeviceType::CPU));
  kept.put(*block);
  delete block;
}

struct MapAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const size_t size = (bytes + kLargePage - 1) / kLargePage * kLargePage;
    Block block = kept.take(size);
    if (block.data == nullptr) {
      TORCH_CHECK_WITH(OutOfMemoryError, posix_memalign(&block.data, kLargePage, size) == 0,
                       "the CPU has no memory for a map of ", bytes, " bytes");
      madvise(block.data, size, MADV_HUGEPAGE);  // only advice: what it answers does not matter
    }
    c10::reportMemoryUsageToProfiler(block.data, static_cast<int64_t>(size), 0, 0,
                                     c10::Device(c10::DeviceType::CPU));
    return {block.data, new Block(block), &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

at::Tensor new_map(const at::Tensor& like) {
  if (like.nbytes() < kLargeMap) return at::empty(like.sizes(), like.options());
  static MapAllocator* const allocator = new MapAllocator;  // lives as long as any map
  return at::detail::empty_generic(like.sizes(), allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::CPU), like.scalar_type(),
                                   std::nullopt);
}
#else
at::Tensor new_map(const at::Tensor& like) { return at::empty(like.sizes(), like.options()); }
#endif

}  // namespace mmsw
