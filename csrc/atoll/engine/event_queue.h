// Events on their way to whoever takes them; the descriptor is readable while there are some.
// Thread-safe.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include "atoll/engine/engine.h"
#include "atoll/net/wakeup.h"

namespace reef {

class EventQueue {
 public:
  explicit EventQueue(Wakeup wakeup) : wakeup_(std::move(wakeup)) {}

  void push(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    ring();
  }
  // Nobody is in a hurry: the bell rings with the next event, or when many have come.
  void push_quietly(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    if (events_.size() >= kMostQuiet) {
      ring();
    }
  }
  // Somebody is in a hurry now.
  void nudge() {
    const std::lock_guard lock(mutex_);
    if (!events_.empty()) {
      ring();
    }
  }
  std::vector<Event> take() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(rung_, false)) {
      wakeup_.silence();
    }
    return std::exchange(events_, {});
  }
  [[nodiscard]] int fd() const { return wakeup_.fd(); }

 private:
  static constexpr std::size_t kMostQuiet = 64;
  void ring() {
    if (!std::exchange(rung_, true)) {
      wakeup_.ring();
    }
  }

  Wakeup wakeup_;
  std::mutex mutex_;
  std::vector<Event> events_;
  bool rung_ = false;
};

}  // namespace reef
