// The memory that two peers of one host share: two byte rings, one each way, in one memfd.
//
// Any thread, one at a time; the rings' two sides are others' business (shm_ring.h).
// Ownership: maps the memory until destroyed; the memfd itself is needed only until the other side
//   has mapped it, too.
// Failure: `io` when the system has no memory or no descriptor to give, `protocol` when what
//   another process passed is not what create() makes. Once mapped, an access cannot fail: the
//   memory is reserved in full and sealed against shrinking.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "atoll/base/result.h"
#include "atoll/net/fd.h"
#include "atoll/net/lifeline.h"

namespace reef {

// The indices of one ring, as they lie in shared memory. Each is alone on its pair of cache lines.
struct RingIndices {
  static constexpr std::uint64_t kAwake = 0;
  alignas(128) std::atomic<std::uint64_t> head;  // bytes ever written; stored by the writer alone
  alignas(128) std::atomic<std::uint64_t> tail;  // bytes ever read; stored by the reader alone
  // kAwake, or the head (tail) at which the sleeping reader (writer) asks to be woken.
  alignas(128) std::atomic<std::uint64_t> reader_waits_for;
  alignas(128) std::atomic<std::uint64_t> writer_waits_for;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "atomics must work between processes");
static_assert(sizeof(RingIndices) == 512, "the layout is shared between builds");

// One ring of a mapping: data[0, 2 * capacity) is the data area twice, back to back.
struct RingView {
  RingIndices* indices = nullptr;
  std::byte* data = nullptr;
  std::size_t capacity = 0;
};

class ShmMemory {
 public:
  // A power of two of this range; the same in both directions.
  static constexpr std::size_t kMinCapacity = 64u << 10;
  static constexpr std::size_t kMaxCapacity = 64u << 20;

  static Result<ShmMemory> create(std::size_t capacity);
  static Result<ShmMemory> adopt(Fd memfd);
  ShmMemory() = default;
  ~ShmMemory();
  ShmMemory(ShmMemory&& other) noexcept;
  ShmMemory& operator=(ShmMemory&& other) noexcept;
  ShmMemory(const ShmMemory&) = delete;
  ShmMemory& operator=(const ShmMemory&) = delete;

  [[nodiscard]] bool valid() const { return base_ != nullptr; }
  [[nodiscard]] int fd() const { return memfd_.get(); }
  void close_fd() { memfd_.reset(); }
  // Ring 0 is written by the creator, ring 1 by the other side.
  [[nodiscard]] RingView ring(std::size_t index) const;
  // Word 0 is held by the creator, word 1 by the other side. Valid as long as the mapping.
  [[nodiscard]] LifeWord& life(std::size_t index) const;

 private:
  Status map();
  void unmap();

  Fd memfd_;
  std::byte* base_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace reef
