#include "atoll/net/shm_ring.h"

namespace reef {

namespace {

constexpr std::uint64_t kAwake = RingIndices::kAwake;

// Whether the sleeper must be woken now that `index` is out. Whoever takes the wish away rings.
bool wakes(std::atomic<std::uint64_t>& wish, std::uint64_t index) {
  std::uint64_t wanted = wish.load(std::memory_order_seq_cst);
  return wanted != kAwake && index >= wanted &&
         wish.exchange(kAwake, std::memory_order_seq_cst) != kAwake;
}

Error corrupt(const char* what) { return Error{Code::protocol, 0, what}; }

}  // namespace

// ---- the writer ---------------------------------------------------------------------------------

Status RingWriter::look() {
  const std::uint64_t tail = ring_.indices->tail.load(std::memory_order_seq_cst);
  // Differences, so that nothing can overflow: it may only grow, and not beyond what is published.
  if (tail - tail_ > published_ - tail_) {
    return corrupt("the peer's reading index in shared memory is impossible");
  }
  tail_ = tail;
  return Unit{};
}

Result<std::span<std::byte>> RingWriter::space(std::size_t wanted) {
  if (ring_.capacity - (written_ - tail_) < wanted) {
    if (Status status = look(); !status.ok()) {
      return status.error();
    }
  }
  return std::span(ring_.data + (written_ & (ring_.capacity - 1)),
                   ring_.capacity - static_cast<std::size_t>(written_ - tail_));
}

void RingWriter::commit(std::size_t bytes) {
  check(bytes <= ring_.capacity - (written_ - tail_), "RingWriter::commit: there is no such space");
  written_ += bytes;
}

bool RingWriter::publish() {
  if (written_ == published_) {
    return false;
  }
  published_ = written_;
  ring_.indices->head.store(written_, std::memory_order_seq_cst);
  return wakes(ring_.indices->reader_waits_for, written_);
}

Result<bool> RingWriter::sleep(std::size_t bytes) {
  check(bytes > 0 && bytes <= ring_.capacity, "RingWriter::sleep: there is never so much space");
  const std::uint64_t used = ring_.capacity - bytes;
  const std::uint64_t wish = written_ > used ? written_ - used : 0;  // tail at which it is free
  if (wish > tail_) {
    ring_.indices->writer_waits_for.store(wish, std::memory_order_seq_cst);
    if (Status status = look(); !status.ok()) {
      return status.error();
    }
  }
  if (tail_ >= wish) {
    ring_.indices->writer_waits_for.store(kAwake, std::memory_order_relaxed);
    return false;
  }
  return true;
}

// ---- the reader ---------------------------------------------------------------------------------

Status RingReader::look() {
  const std::uint64_t head = ring_.indices->head.load(std::memory_order_seq_cst);
  if (head - head_ > ring_.capacity - (head_ - released_)) {
    return corrupt("the peer's writing index in shared memory is impossible");
  }
  head_ = head;
  return Unit{};
}

Result<std::span<const std::byte>> RingReader::readable(std::size_t wanted) {
  if (head_ - read_ < wanted) {
    if (Status status = look(); !status.ok()) {
      return status.error();
    }
  }
  return std::span<const std::byte>(ring_.data + (read_ & (ring_.capacity - 1)),
                                    static_cast<std::size_t>(head_ - read_));
}

void RingReader::consume(std::size_t bytes) {
  check(bytes <= head_ - read_, "RingReader::consume: there is no so much to read");
  read_ += bytes;
}

bool RingReader::release() {
  if (read_ == released_) {
    return false;
  }
  released_ = read_;
  ring_.indices->tail.store(read_, std::memory_order_seq_cst);
  return wakes(ring_.indices->writer_waits_for, read_);
}

Result<bool> RingReader::sleep(std::size_t bytes) {
  check(bytes > 0 && bytes <= ring_.capacity / 2 && read_ == released_,
        "RingReader::sleep: it would never be woken");
  const std::uint64_t wish = read_ + bytes;
  ring_.indices->reader_waits_for.store(wish, std::memory_order_seq_cst);
  if (Status status = look(); !status.ok()) {
    return status.error();
  }
  if (head_ >= wish) {
    ring_.indices->reader_waits_for.store(kAwake, std::memory_order_relaxed);
    return false;
  }
  return true;
}

}  // namespace reef
