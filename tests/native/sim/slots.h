// The slots of all simulated links: two ends each, with the real log (book.h), and one connection at a
// time between them.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "atoll/collective/core.h"
#include "atoll/net/send_queue.h"
#include "sim/book.h"

namespace reef::sim {

// A frame under way, copied.
struct Flight {
  HeaderBytes header{};
  std::vector<std::byte> bytes;
  std::uint64_t number = 0;  // in the sender's book; 0: a heartbeat
};

// One connection, which one side has made. An end uses it from when it has adopted it until it
// notices that it is broken.
struct Wire {
  std::size_t caller = 0;   // the end that made it
  std::uint64_t call = 0;   // later ones have larger numbers
  bool broken = false;      // nothing goes in any more
  std::deque<Flight> pipes[2];  // towards the peer with the larger number, and the smaller one
};

// One peer's end of one slot.
struct End {
  explicit End(Book its_book) : book(std::move(its_book)) {}

  Book book;
  std::shared_ptr<Wire> wire;  // null: lost
  std::uint64_t losses = 0;
  // Sending: frames that it has taken and not written whole, the first perhaps by half.
  std::deque<OutFrame> batch;
  bool half = false;
  std::vector<std::byte> first_half;
  bool transmitting = false;
  // Receiving: the first frame in the pipe has been begun.
  bool receiving = false;
  bool begun = false;
  bool thrown_away = false;  // its op was released meanwhile
  std::span<std::byte> place;
  OpId receiving_op = 0;
  // Repair: an attempt that waits, and one that has said HELLO.
  bool calling = false;
  std::shared_ptr<Wire> call;
};

// One peer's side of a link.
struct Side {
  SendQueue queue;
  bool down = false;  // it holds the link for lost
  std::vector<OutFrame> anywhere;  // Mutation::resends_in_another_slot
};

class Slots {
 public:
  Slots(std::size_t peers, std::size_t slots, Mutation mutation, Failure& failure)
      : peers_(peers), slots_(slots), sides_(peers * peers) {
    for (std::size_t i = 0; i < peers * peers * slots; ++i) {
      ends_.emplace_back(Book(mutation, failure));
    }
    for (std::size_t i = 0; i < ends_.size(); ++i) {
      if (owner(i) >= other(i)) continue;
      ends_[i].wire = ends_[opposite(i)].wire = std::make_shared<Wire>();
    }
  }

  [[nodiscard]] std::size_t peers() const { return peers_; }
  [[nodiscard]] std::size_t slots() const { return slots_; }
  // `number`'s end of a slot of its link to `other`.
  [[nodiscard]] std::size_t index(std::size_t number, std::size_t other, std::size_t slot) const {
    return (number * peers_ + other) * slots_ + slot;
  }
  [[nodiscard]] std::size_t owner(std::size_t end) const { return end / slots_ / peers_; }
  [[nodiscard]] std::size_t other(std::size_t end) const { return end / slots_ % peers_; }
  [[nodiscard]] std::size_t opposite(std::size_t end) const {
    return index(other(end), owner(end), end % slots_);
  }
  End& operator[](std::size_t end) { return ends_[end]; }
  const End& operator[](std::size_t end) const { return ends_[end]; }
  Side& side(std::size_t number, std::size_t other) { return sides_[number * peers_ + other]; }
  [[nodiscard]] const Side& side(std::size_t number, std::size_t other) const {
    return sides_[number * peers_ + other];
  }
  Side& side_of(std::size_t end) { return sides_[end / slots_]; }
  // What goes from this end, and what comes to it.
  std::deque<Flight>& outgoing(Wire& wire, std::size_t end) const {
    return wire.pipes[owner(end) < other(end) ? 0 : 1];
  }
  std::deque<Flight>& incoming(Wire& wire, std::size_t end) const {
    return wire.pipes[owner(end) < other(end) ? 1 : 0];
  }

 private:
  std::size_t peers_;
  std::size_t slots_;
  std::vector<Side> sides_;
  std::vector<End> ends_;
};

}  // namespace reef::sim
