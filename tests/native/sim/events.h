// Time and chance of a simulation: one seed, one order of events. Single-threaded.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "atoll/base/time.h"

namespace reef::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  // 0 .. bound-1
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  std::uint64_t between(std::uint64_t low, std::uint64_t high) {
    return low + below(high - low + 1);
  }
  bool percent(std::uint64_t chance) { return below(100) < chance; }

 private:
  std::mt19937_64 engine_;
};

class Events {
 public:
  Nanos now = 0;
  void after(std::uint64_t delay, std::function<void()> action) {
    queue_.push({now + static_cast<Nanos>(delay), next_++, std::move(action)});
  }
  bool step() {
    if (queue_.empty()) return false;
    // The action may add events: it must be out of the queue before it runs.
    Event event = std::move(const_cast<Event&>(queue_.top()));
    queue_.pop();
    now = event.time;
    event.action();
    return true;
  }

 private:
  struct Event {
    Nanos time;
    std::uint64_t number;
    std::function<void()> action;
    bool operator<(const Event& other) const {
      return time != other.time ? time > other.time : number > other.number;
    }
  };
  std::priority_queue<Event> queue_;
  std::uint64_t next_ = 0;
};

// The first broken promise; everything after it is of no interest.
class Failure {
 public:
  void report(std::string what) {
    if (what_.empty()) what_ = std::move(what);
  }
  [[nodiscard]] bool happened() const { return !what_.empty(); }
  [[nodiscard]] const std::string& what() const { return what_; }

 private:
  std::string what_;
};

}  // namespace reef::sim
