// The process's table of owned descriptors. It is global because what it describes is: the kernel
// has one table of descriptors a process, and fork copies it whole.
#include <pthread.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "atoll/net/fd.h"

namespace reef {
namespace {

constexpr std::size_t kWordBits = 64;
constexpr std::size_t kTracked = std::size_t{1} << 16;  // higher numbers stay open in children

std::array<std::atomic<std::uint64_t>, kTracked / kWordBits> owned;

// In the child, before fork returns there: only this thread exists, and only what is safe in a
// signal handler is allowed.
void close_all() {
  for (std::size_t word = 0; word < owned.size(); ++word) {
    const std::uint64_t bits = owned[word].exchange(0, std::memory_order_relaxed);
    for (std::size_t bit = 0; bit < kWordBits; ++bit) {
      if ((bits >> bit & 1U) != 0) {
        ::close(static_cast<int>(word * kWordBits + bit));
      }
    }
  }
}

// False when memory was short: children then keep what they inherit.
const bool registered = pthread_atfork(nullptr, nullptr, close_all) == 0;

void set(int fd, bool value) {
  const auto number = static_cast<std::size_t>(fd);
  if (!registered || number >= kTracked) {
    return;
  }
  const std::uint64_t bit = std::uint64_t{1} << (number % kWordBits);
  if (value) {
    owned[number / kWordBits].fetch_or(bit, std::memory_order_relaxed);
  } else {
    owned[number / kWordBits].fetch_and(~bit, std::memory_order_relaxed);
  }
}

}  // namespace

void note_owned(int fd) { set(fd, true); }
void note_released(int fd) { set(fd, false); }

}  // namespace reef
