// The book of one end of a simulated slot: the real SlotLog, and beside it a list of what must
// arrive, by which every frame that is lost, comes twice or comes out of order is found. A Mutation
// breaks one rule of repair, to show that it is found out.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atoll/net/repair_attempts.h"
#include "atoll/net/slot_log.h"
#include "sim/events.h"

namespace reef::sim {

enum class Mutation : std::uint8_t {
  none,
  resends_nothing,           // what was written and not acknowledged is dropped at a resume
  resends_backwards,         // ... is sent again in another order
  resends_all,               // the peer's count at a resume is not looked at
  resends_after_new_frames,  // ... is sent again only when there is nothing new
  resends_in_another_slot,   // ... is taken by whichever connection of the link comes first
  loses_what_waited,         // what a lost connection had taken and not written is dropped
  forgets_what_it_received,  // the count in the handshake begins anew
  counts_half_a_frame,       // a frame of which a half had arrived counts as received
  counts_heartbeats,         // as the receiver counts
  remembers_forgotten_ops,   // an op's Release leaves its frames in the log
  admits_old_attempts,       // a HELLO that was given up long ago counts
  greets_twice,              // two attempts say HELLO at a time, and the first answer counts
  overtakes_in_a_connection, // a frame passes the one before it
};

struct NamedMutation {
  Mutation mutation;
  const char* name;
};
// Every one of these must be found.
inline constexpr std::array kMutations = {
    NamedMutation{Mutation::resends_nothing, "ResendsNothing"},
    NamedMutation{Mutation::resends_backwards, "ResendsBackwards"},
    NamedMutation{Mutation::resends_all, "ResendsAll"},
    NamedMutation{Mutation::resends_after_new_frames, "ResendsAfterNewFrames"},
    NamedMutation{Mutation::resends_in_another_slot, "ResendsInAnotherSlot"},
    NamedMutation{Mutation::loses_what_waited, "LosesWhatWaited"},
    NamedMutation{Mutation::forgets_what_it_received, "ForgetsWhatItReceived"},
    NamedMutation{Mutation::counts_half_a_frame, "CountsHalfAFrame"},
    NamedMutation{Mutation::counts_heartbeats, "CountsHeartbeats"},
    NamedMutation{Mutation::remembers_forgotten_ops, "RemembersForgottenOps"},
    NamedMutation{Mutation::admits_old_attempts, "AdmitsOldAttempts"},
    NamedMutation{Mutation::greets_twice, "GreetsTwice"},
    NamedMutation{Mutation::overtakes_in_a_connection, "OvertakesInAConnection"},
};

class Book {
 public:
  Book(Mutation mutation, Failure& failure) : mutation_(mutation), failure_(failure) {}

  // ---- as the sender ----
  // A frame that this slot takes for the first time gets a number of its own.
  void enter(OutFrame& frame) {
    frame.keep = std::make_shared<Ticket>(Ticket{next_, std::move(frame.keep)});
    expected_[next_++] = {frame.op, false};
  }
  [[nodiscard]] static std::uint64_t number(const OutFrame& frame) {
    return std::static_pointer_cast<const Ticket>(frame.keep)->number;
  }
  bool take_again(OutFrame& frame) { return log_.take_again(frame); }
  [[nodiscard]] bool again() const { return log_.again(); }
  [[nodiscard]] bool full() const { return log_.full(); }
  void wrote(OutFrame frame) { log_.wrote(std::move(frame)); }
  void forget(OpId op) {
    if (op == 0) return;
    if (mutation_ != Mutation::remembers_forgotten_ops) log_.forget(op);
    for (auto& [number, frame] : expected_) frame.excused |= frame.op == op;
  }
  void acknowledged(std::uint64_t received) {
    judge(log_.acknowledged(received), "a count");
    acknowledged_ = std::max(acknowledged_, received);
  }
  void lost(std::vector<OutFrame> unsent) {
    if (mutation_ == Mutation::loses_what_waited) unsent.clear();
    log_.lost(std::move(unsent));
  }
  void resume(std::uint64_t received) {
    if (mutation_ == Mutation::resends_all) received = acknowledged_;
    judge(log_.resume(received), "a count at a resume");
    acknowledged_ = std::max(acknowledged_, received);
    if (mutation_ == Mutation::resends_nothing) take_all();
    if (mutation_ == Mutation::resends_backwards) {
      std::vector<OutFrame> again = take_all();
      std::reverse(again.begin(), again.end());
      log_.lost(std::move(again));
    }
  }
  std::vector<OutFrame> take_all() {
    std::vector<OutFrame> again;
    for (OutFrame frame; log_.take_again(frame);) again.push_back(std::move(frame));
    return again;
  }
  // The frame with this number has reached the other side whole.
  void delivered(std::uint64_t number) {
    if (!expected_.contains(number)) {
      failure_.report("frame " + std::to_string(number) + " of a slot came twice, or too late");
    }
    while (!expected_.empty() && expected_.begin()->first <= number) {
      const auto first = expected_.begin();
      if (first->first < number && !first->second.excused) {
        failure_.report("frame " + std::to_string(first->first) + " of a slot was lost before " +
                        std::to_string(number));
      }
      expected_.erase(first);
    }
  }
  // The frame's payload is about to be read.
  void reads(const OutFrame& frame) const {
    if (frame.op == 0 || !frame.keep) return;
    const auto at = expected_.find(number(frame));
    if (at != expected_.end() && at->second.excused) {
      failure_.report("a released op's buffer was read");
    }
  }
  [[nodiscard]] bool all_delivered() const {
    return std::all_of(expected_.begin(), expected_.end(),
                       [](const auto& entry) { return entry.second.excused; });
  }

  // ---- as the receiver ----
  void arrived(std::size_t bytes) { log_.arrived(bytes); }
  [[nodiscard]] bool unacknowledged() const { return log_.received() != said_; }
  std::uint64_t acknowledge() { return said_ = log_.acknowledge(); }
  // What a HELLO or HELLO_ACK says.
  [[nodiscard]] std::uint64_t received() const {
    return mutation_ == Mutation::forgets_what_it_received ? 0 : log_.received();
  }

  // ---- attempts ----
  std::uint32_t next_attempt() { return attempts_.next(); }
  [[nodiscard]] bool admits(std::uint32_t attempt) const {
    return mutation_ == Mutation::admits_old_attempts || attempts_.admits(attempt);
  }
  std::uint32_t admit(std::uint32_t attempt) { return attempts_.admit(attempt); }
  void established(std::uint32_t attempt) { attempts_.established(attempt); }

 private:
  struct Ticket {
    std::uint64_t number;
    std::shared_ptr<const void> keep;
  };
  struct Expected {
    OpId op = 0;
    bool excused = false;  // its op was forgotten: it may arrive, or not
  };

  void judge(const Status& status, const char* what) {
    if (!status.ok()) {
      failure_.report(std::string(what) + " of an honest peer was refused: " +
                      status.error().message);
    }
  }

  Mutation mutation_;
  Failure& failure_;
  SlotLog log_;
  RepairAttempts attempts_;
  std::uint64_t next_ = 1;
  std::map<std::uint64_t, Expected> expected_;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t said_ = 0;
};

}  // namespace reef::sim
