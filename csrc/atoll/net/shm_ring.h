// A byte ring between two processes: one writes, one reads, neither waits here.
//
// Each side belongs to one thread of its process. Writing and reading are plain memory accesses;
// publish() and release() tell the other side of them. A side that has nothing to do says from when
// on it wants to be woken (sleep()) and goes away; the other side's publish() or release() that
// reaches this point returns true: it must then ring the sleeper's bell, once. Store the wish, look
// again - store the index, look for a wish: all four are sequentially consistent, so no bell is
// lost.
//
// Failure: indices that come from the other side are checked against the capacity and against what
// it said before; one that is impossible is a `protocol` error. A wish is only compared: a wrong
// one costs its owner a bell. What the ring holds may change while it is read, if the other side is
// hostile: copy what is to be judged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "atoll/base/result.h"
#include "atoll/net/shm_memory.h"

namespace reef {

class RingWriter {
 public:
  explicit RingWriter(const RingView& ring) : ring_(ring) {}

  // The free bytes behind what is written, contiguous; at least `wanted` of them if there are so
  // many.
  Result<std::span<std::byte>> space(std::size_t wanted);
  // Appends the first bytes of space(). Not seen by the reader before publish().
  void commit(std::size_t bytes);
  [[nodiscard]] std::size_t unpublished() const {
    return static_cast<std::size_t>(written_ - published_);
  }
  [[nodiscard]] bool publish();
  // Asks to be woken when so many bytes are free. False: they are, go on.
  Result<bool> sleep(std::size_t bytes);
  [[nodiscard]] std::size_t capacity() const { return ring_.capacity; }

 private:
  Status look();

  RingView ring_;
  std::uint64_t written_ = 0;
  std::uint64_t published_ = 0;
  std::uint64_t tail_ = 0;  // as last seen
};

class RingReader {
 public:
  explicit RingReader(const RingView& ring) : ring_(ring) {}

  // What can be read, contiguous; at least `wanted` bytes if there are so many.
  Result<std::span<const std::byte>> readable(std::size_t wanted);
  // Takes the first bytes of readable(). They stay intact until release().
  void consume(std::size_t bytes);
  [[nodiscard]] std::size_t unreleased() const {
    return static_cast<std::size_t>(read_ - released_);
  }
  [[nodiscard]] bool release();
  // Asks to be woken when so many bytes can be read. False: they can, go on. Release first, and ask
  // for no more than half the capacity, or both sides may sleep.
  Result<bool> sleep(std::size_t bytes);
  [[nodiscard]] std::size_t capacity() const { return ring_.capacity; }

 private:
  Status look();

  RingView ring_;
  std::uint64_t read_ = 0;
  std::uint64_t released_ = 0;
  std::uint64_t head_ = 0;  // as last seen
};

}  // namespace reef
