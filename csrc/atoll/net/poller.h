// Level-triggered epoll that never delivers a stale event. The reactor thread only.
//
// Each registration has a slot and a generation; both travel in the epoll event. An event whose
// registration has ended in the meantime (even when its slot or its file descriptor is in use
// again) finds another generation and is dropped.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/fd.h"

namespace reef {

// What wants to hear of a file descriptor. It may end registrations, its own too, while it is called,
// but must stay alive until on_ready() has returned.
class Ready {
 public:
  virtual void on_ready(std::uint32_t events) = 0;

 protected:
  ~Ready() = default;
};

class Poller;

// Ends when destroyed: destroy it before the file descriptor is closed, and before the poller.
class Registration {
 public:
  Registration() = default;
  ~Registration() { reset(); }
  Registration(Registration&& other) noexcept
      : poller_(std::exchange(other.poller_, nullptr)), slot_(other.slot_) {}
  Registration& operator=(Registration&& other) noexcept;
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  void watch(std::uint32_t events);  // EPOLL* flags; a system call only when they change
  void reset();
  [[nodiscard]] bool active() const { return poller_ != nullptr; }

 private:
  friend class Poller;
  Registration(Poller* poller, std::uint32_t slot) : poller_(poller), slot_(slot) {}
  Poller* poller_ = nullptr;
  std::uint32_t slot_ = 0;
};

class Poller {
 public:
  static Result<std::unique_ptr<Poller>> create();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  Result<Registration> add(int fd, std::uint32_t events, Ready& target);

  // Waits until something is ready or `timeout` (kNever: for ever) has passed, and calls on_ready()
  // of each; after each of them, after_each().
  template <typename F>
  void wait(Nanos timeout, F&& after_each) {
    const int count = collect(timeout);
    for (int i = 0; i < count; ++i) {
      if (dispatch(i)) {
        after_each();
      }
    }
  }

 private:
  friend class Registration;
  struct Slot {
    int fd = -1;
    std::uint32_t generation = 0;
    std::uint32_t events = 0;
    Ready* target = nullptr;
  };
  explicit Poller(Fd epoll);
  int collect(Nanos timeout);
  bool dispatch(int index);

  Fd epoll_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  struct Batch;
  struct BatchDeleter {
    void operator()(Batch* batch) const;
  };
  std::unique_ptr<Batch, BatchDeleter> batch_;
};

}  // namespace reef
