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
    if (events_.size() == 1) {
      wakeup_.ring();
    }
  }
  std::vector<Event> take() {
    const std::lock_guard lock(mutex_);
    if (!events_.empty()) {
      wakeup_.silence();
    }
    return std::exchange(events_, {});
  }
  [[nodiscard]] int fd() const { return wakeup_.fd(); }

 private:
  Wakeup wakeup_;
  std::mutex mutex_;
  std::vector<Event> events_;
};

}  // namespace reef
