#include "atoll/engine/op_table.h"

#include <chrono>
#include <utility>

namespace reef {

namespace {

// Longer waits are cut into such pieces, since a clock's end must not overflow.
constexpr Nanos kLongestWait = 3'600 * kSecond;

}  // namespace

OpId OpTable::open(Nanos now, bool watched) {
  const std::lock_guard lock(mutex_);
  const OpId op = ++last_;
  Entry& entry = entries_[op];
  entry.submitted = now;
  entry.watched = watched;
  return op;
}

bool OpTable::finish(OpId op, Outcome outcome) {
  bool notify = false;
  bool watched = false;
  {
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(op);
    check(at != entries_.end() && !at->second.outcome, "OpTable::finish: the op is not open");
    watched = at->second.watched;
    outcome.elapsed = monotonic_now() - at->second.submitted;
    if (at->second.released) {
      entries_.erase(at);
    } else {
      at->second.outcome = std::move(outcome);
    }
    notify = waiting_ > 0;
  }
  if (notify) {
    finished_.notify_all();
  }
  return watched;
}

bool OpTable::watch(OpId op) {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(op);
  if (at == entries_.end()) {
    return true;
  }
  at->second.watched = true;
  return at->second.outcome.has_value();
}

std::optional<Outcome> OpTable::wait(OpId op, Nanos timeout) {
  const Nanos began = monotonic_now();
  const Nanos deadline = timeout >= kNever - began ? kNever : began + timeout;
  std::unique_lock lock(mutex_);
  while (true) {
    const auto at = entries_.find(op);
    if (at == entries_.end() || at->second.released) {
      return Outcome{.code = Code::invalid,
                     .message = "op " + std::to_string(op) + " is not known or was released"};
    }
    if (at->second.outcome) {
      return at->second.outcome;
    }
    const Nanos now = timeout <= 0 ? deadline : monotonic_now();
    if (now >= deadline) {
      return std::nullopt;
    }
    ++waiting_;
    const Nanos left = deadline == kNever ? kLongestWait : std::min(deadline - now, kLongestWait);
    finished_.wait_for(lock, std::chrono::nanoseconds(left));
    --waiting_;
  }
}

void OpTable::release(OpId op) {
  const std::lock_guard lock(mutex_);
  const auto at = entries_.find(op);
  if (at == entries_.end()) {
    return;
  }
  if (at->second.outcome) {
    entries_.erase(at);
  } else {
    at->second.released = true;
  }
}

void OpTable::withdraw(OpId op) {
  const std::lock_guard lock(mutex_);
  entries_.erase(op);
}

}  // namespace reef
