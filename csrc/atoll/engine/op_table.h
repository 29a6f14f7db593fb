// The outcomes of submitted ops and fetches, for those who wait for them. Thread-safe.
//
// An op is opened once, finished once and released once; its entry lasts until it is both finished
// and released.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "atoll/base/ids.h"
#include "atoll/base/time.h"
#include "atoll/engine/engine.h"

namespace reef {

class OpTable {
 public:
  OpId open(Nanos now, bool watched = true);
  // Sets outcome.elapsed, too. The op must be open and unfinished. Returns whether somebody waits
  // for its event.
  bool finish(OpId op, Outcome outcome);
  // Its event is waited for from now on. Returns whether the op is over already.
  bool watch(OpId op);
  // nullopt: not over within the timeout. An op that is not known has the outcome `invalid`.
  std::optional<Outcome> wait(OpId op, Nanos timeout);
  void release(OpId op);
  // Takes back an open() whose op never reached the reactor.
  void withdraw(OpId op);

 private:
  struct Entry {
    Nanos submitted = 0;
    std::optional<Outcome> outcome;
    bool released = false;
    bool watched = true;
  };
  std::mutex mutex_;
  std::condition_variable finished_;
  std::unordered_map<OpId, Entry> entries_;
  OpId last_ = 0;
  unsigned waiting_ = 0;
};

}  // namespace reef
