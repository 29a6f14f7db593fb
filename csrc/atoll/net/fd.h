// A file descriptor with one owner. Any thread, one at a time.
//
// A process that is forked from this one closes all of them at once (owned_fds.cpp): it has no use
// for them, and a socket ends only with its last descriptor. Kept in a child, a DataLoader's worker
// say, a connection would outlive the process that it belongs to, and its peers would not be told.
#pragma once

#include <unistd.h>

#include <utility>

namespace reef {

// Notes that a descriptor is owned, or is not any more. From any thread; lock-free.
void note_owned(int fd);
void note_released(int fd);

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {
    if (fd_ >= 0) {
      note_owned(fd_);
    }
  }
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  void reset() {
    if (fd_ >= 0) {
      note_released(fd_);               // first, or the number may be somebody else's already
      ::close(std::exchange(fd_, -1));  // Linux frees the number even on EINTR: never retried
    }
  }

 private:
  int fd_ = -1;
};

}  // namespace reef
