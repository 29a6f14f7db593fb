// Which attempt at mending a slot counts. Pure; the reactor thread.
//
// An attempt that was given up long ago may still lie in a queue somewhere. It must not end a
// connection that is newer: hence attempts are numbered, and both sides know the number of the one
// that made the present connection. Each attempt counts on from that and from this side's own.
#pragma once

#include <algorithm>
#include <cstdint>

namespace reef {

class RepairAttempts {
 public:
  // The number of this side's next attempt.
  std::uint32_t next() {
    tried_ = std::max(tried_, established_) + 1;
    return tried_;
  }
  // Whether the peer's attempt is newer than the present connection.
  [[nodiscard]] bool admits(std::uint32_t attempt) const { return attempt > established_; }
  // The peer's attempt, which admits() holds for, is the one: returns the number to answer with, which
  // counts beyond this side's own attempts.
  std::uint32_t admit(std::uint32_t attempt) {
    established_ = std::max(attempt, tried_);
    return established_;
  }
  // A connection has come of an attempt that the peer gives this number.
  void established(std::uint32_t attempt) { established_ = std::max(established_, attempt); }

 private:
  std::uint32_t established_ = 0;  // the attempt that made the present connection
  std::uint32_t tried_ = 0;        // this side's last one
};

}  // namespace reef
