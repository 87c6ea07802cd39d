// The blocks of a channel: how the weights of the cross lie in memory, and which of them are zero.
//
// A channel has the blocks of its wide arm, those of its tall arm and, in the training form, that
// of the identity. A block is stored as [tap][n], the wide arm's too, which is why that arm can run
// as the tall arm of the transposed map. A mask has a bit per block that is not all zero; each arm
// begins a new word.
#pragma once

#include "tile.cuh"

namespace mmsw {

struct Arm {
  int side, slots;
  int first;   // of its first tap, as in pattern.h
  int pad;     // the last `pad` taps of slot 0 are zero and belong to slot 1
  int block0;  // of a channel's blocks
  int word0;   // of a channel's mask

  // Taps from the first one to slot `slot`, and the slot that a tap belongs to.
  MMSW_HOST_DEVICE int start(int slot) const { return max_of(0, slot * side - pad); }
  MMSW_HOST_DEVICE int slot_of(int tap) const { return (tap + pad) / side; }
  MMSW_HOST_DEVICE int words() const { return ceil_div(slots, 32); }
};

struct Cross {
  int side;
  Arm wide, tall;
  bool identity;

  // The identity as an arm of one slot, on the map as it is.
  MMSW_HOST_DEVICE Arm small() const {
    return {side, 1, -(side / 2), 0, tall.block0 + tall.slots, tall.word0 + tall.words()};
  }
  MMSW_HOST_DEVICE int blocks() const { return small().block0 + identity; }
  MMSW_HOST_DEVICE int words() const { return small().word0 + identity; }
  MMSW_HOST_DEVICE int values() const { return blocks() * block_pitch(side); }
};

inline Cross cross_of_pattern(const PatternSizes& sizes, bool flipped) {
  const Arm wide = {sizes.side, sizes.groups, sizes.first(flipped), 0, 0, 0};
  Arm tall = wide;
  tall.block0 = wide.slots;
  tall.word0 = wide.words();
  return {sizes.side, wide, tall, true};
}

// Arms of any odd lengths. The slots end where the arm ends, as those of a folded pattern do, so
// that its zero blocks are zero here.
inline Cross cross_of_arms(int side, int wide_taps, int tall_taps) {
  const auto arm = [&](int taps, int block0, int word0) {
    const int slots = ceil_div(taps, side);
    return Arm{side, slots, -(taps / 2), slots * side - taps, block0, word0};
  };
  const Arm wide = arm(wide_taps, 0, 0);
  return {side, wide, arm(tall_taps, wide.slots, wide.words()), false};
}

// Marks the blocks of one channel that hold anything but zeros. `arm_of` tells the arm of a word of
// the mask; `flags` is scratch, one per block.
template <typename Acc, typename Team, typename ArmOf>
MMSW_HOST_DEVICE void mark_occupied(const Team& team, int side, int block_count, int words,
                                    const ArmOf& arm_of, const Acc* blocks, uint32_t* occupied,
                                    int* flags) {
  const int pitch = block_pitch(side);
  team.each_thread([&](int thread) {
    for (int block = thread; block < block_count; block += team.threads()) {
      bool any = false;
      for (int i = 0; i < pitch; ++i) any = any || blocks[block * pitch + i] != Acc(0);
      flags[block] = any;
    }
  });
  team.each_thread([&](int thread) {
    for (int word = thread; word < words; word += team.threads()) {
      const Arm arm = arm_of(word);
      const int begin = (word - arm.word0) * 32, count = min_of(32, arm.slots - begin);
      uint32_t bits = 0;
      for (int i = 0; i < count; ++i) {
        bits |= static_cast<uint32_t>(flags[arm.block0 + begin + i]) << i;
      }
      occupied[word] = bits;
    }
  });
}

template <typename Acc, typename Team>
MMSW_HOST_DEVICE void mark_occupied(const Team& team, const Cross& cross, const Acc* blocks,
                                    uint32_t* occupied, int* flags) {
  const auto arm_of = [&](int word) {
    return word < cross.tall.word0      ? cross.wide
           : word < cross.small().word0 ? cross.tall
                                        : cross.small();
  };
  mark_occupied(team, cross.side, cross.blocks(), cross.words(), arm_of, blocks, occupied, flags);
}

// Integers of scratch that the two functions below need.
inline int64_t pattern_scratch(const PatternSizes& sizes) {
  return (4 * static_cast<int64_t>(sizes.reps) + 2) * sizes.groups + 1;
}
inline int64_t arms_scratch(const Cross& cross) { return cross.blocks(); }

// The blocks of one channel of a pattern, gathered without atomics; `flipped` for the gradient of
// the map. Any table of shifts gives what it says: groups that share a slot are added, groups
// outside the arm are left out.
template <typename T, typename Team>
MMSW_HOST_DEVICE void assemble_pattern(const Team& team, int channel, const Pattern& pattern,
                                       const Cross& cross, bool flipped, const T* weight,
                                       typename Accumulator<T>::type* all_blocks,
                                       uint32_t* all_occupied, int* scratch) {
  using Acc = typename Accumulator<T>::type;
  const int groups = pattern.sizes.groups, reps = pattern.sizes.reps, side = cross.side;
  const int taps = pattern.sizes.block_size(), pitch = block_pitch(side);
  const T* kernels = weight + static_cast<int64_t>(channel) * groups * taps;
  Acc* blocks = all_blocks + static_cast<int64_t>(channel) * cross.values();
  // Per draw: the first group of every slot, and the next one after every group; -1 ends.
  int* head = scratch;
  int* next = head + 2 * reps * groups;
  int* flags = next + 2 * reps * groups;
  team.each_thread([&](int thread) {
    for (int draw = thread; draw < 2 * reps; draw += team.threads()) {
      for (int slot = 0; slot < groups; ++slot) head[draw * groups + slot] = -1;
      for (int group = groups - 1; group >= 0; --group) {
        const int slot = pattern.slot_of(channel, group, draw);
        if (!in_range(slot, groups)) continue;
        next[draw * groups + group] = head[draw * groups + slot];
        head[draw * groups + slot] = group;
      }
    }
  });
  team.each_thread([&](int thread) {
    for (int i = thread; i < cross.values(); i += team.threads()) {
      const int block = i / pitch, own = i % pitch;
      const int arm = block / groups, slot = block % groups;
      const int tap = own / side, n = own % side;
      Acc sum = Acc(0);
      for (int rep = 0; rep < reps && own < taps; ++rep) {
        const int draw = arm * reps + rep;
        int group = arm < 2 ? head[draw * groups + slot] : pattern.identity_group(channel, rep);
        if (!in_range(group, groups)) continue;
        do {
          const T* kernel = kernels + static_cast<int64_t>(group) * taps;
          sum += Convert<T>::load(kernel[arm == 0 ? n * side + tap : own]);
          group = arm < 2 ? next[draw * groups + group] : -1;
        } while (group >= 0);
      }
      const int there = flipped && arm < 2 ? (2 * arm + 1) * groups - 1 - block : block;
      blocks[there * pitch + (flipped && own < taps ? taps - 1 - own : own)] = sum;
    }
  });
  mark_occupied(team, cross, blocks, all_occupied + static_cast<int64_t>(channel) * cross.words(),
                flags);
}

// The blocks of one channel of a folded layer, from its arms [C, taps, N].
template <typename T, typename Team>
MMSW_HOST_DEVICE void assemble_arms(const Team& team, int channel, const Cross& cross,
                                    const T* wide, const T* tall,
                                    typename Accumulator<T>::type* all_blocks,
                                    uint32_t* all_occupied, int* scratch) {
  using Acc = typename Accumulator<T>::type;
  const int side = cross.side, pitch = block_pitch(side);
  Acc* blocks = all_blocks + static_cast<int64_t>(channel) * cross.values();
  team.each_thread([&](int thread) {
    for (int i = thread; i < cross.values(); i += team.threads()) {
      const int block = i / pitch, own = i % pitch;
      const Arm arm = block < cross.tall.block0 ? cross.wide : cross.tall;
      const int taps = arm.slots * side - arm.pad;
      const int slot = block - arm.block0, tap = arm.start(slot) + own / side;
      const int end = slot == 0 ? side - arm.pad : taps;
      const T* source =
          (block < cross.tall.block0 ? wide : tall) + static_cast<int64_t>(channel) * taps * side;
      blocks[i] = own < side * side && tap < end ? Convert<T>::load(source[tap * side + own % side])
                                                 : Acc(0);
    }
  });
  mark_occupied(team, cross, blocks, all_occupied + static_cast<int64_t>(channel) * cross.words(),
                scratch);
}

// The slots of one channel that a filter with its mask on stands in; `active` is laid out like
// `occupied`. Thread program: one word of it.
MMSW_HOST_DEVICE uint32_t active_word(int channel, int word, const Pattern& pattern,
                                      const Cross& cross, const bool* mask) {
  const int groups = pattern.sizes.groups, reps = pattern.sizes.reps;
  const bool* own = mask + static_cast<int64_t>(channel) * groups;
  uint32_t bits = 0;
  for (int rep = 0; rep < reps; ++rep) {
    if (word == cross.small().word0) {
      const int group = pattern.identity_group(channel, rep);
      if (in_range(group, groups) && own[group]) bits = 1;
      continue;
    }
    const int arm = word < cross.tall.word0 ? 0 : 1;
    const int begin = (word - (arm == 0 ? 0 : cross.tall.word0)) * 32;
    for (int group = 0; group < groups; ++group) {
      const int slot = pattern.slot_of(channel, group, arm * reps + rep);
      if (own[group] && in_range(slot, groups) && in_range(slot - begin, 32)) {
        bits |= uint32_t{1} << (slot - begin);
      }
    }
  }
  return bits;
}

}  // namespace mmsw
