// The simulated network: shells and links of all peers. A link has one to three slots with a connection
// each; what a core sends waits in the real SendQueue of its link until a connection takes it
// (flow.h); connections break and are mended (repair.h).
#pragma once

#include <string>
#include <utility>

#include "sim/flow.h"
#include "sim/hosts.h"
#include "sim/repair.h"
#include "sim/slots.h"

namespace reef::sim {

class Network {
 public:
  Network(Hosts& hosts, Events& events, Random& random, Failure& failure, std::size_t peers,
          Mutation mutation)
      : hosts_(hosts),
        events_(events),
        random_(random),
        failure_(failure),
        slots_(peers, random.between(1, 3), mutation, failure),
        flow_(hosts, events, random, failure, slots_, mutation),
        repair_(hosts, events, random, failure, slots_, flow_, mutation,
                [this](std::size_t number, std::size_t other) { link_down(number, other); }) {}

  [[nodiscard]] const Flow::Tally& flow() const { return flow_.tally(); }
  [[nodiscard]] const Repair::Tally& repair() const { return repair_.tally(); }

  void send(std::size_t from, std::size_t to, Send&& send) {
    Side& side = slots_.side(from, to);
    if (side.down) return;
    side.queue.push_control(frame_of(send));
    flow_.kick(from, to);
  }
  // A core has data for a peer: each connection asks for some when it has room.
  void data_ready(std::size_t from, std::size_t to) {
    Side& side = slots_.side(from, to);
    if (side.down) return;
    side.queue.data_waiting();
    flow_.kick(from, to);
  }
  // The core wants its buffers back.
  void release(std::size_t number, OpId op) {
    for (std::size_t other = 0; other < slots_.peers(); ++other) {
      if (other == number) continue;
      slots_.side(number, other).queue.purge(op);
      for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
        flow_.forget(slots_.index(number, other, slot), op);
      }
    }
  }
  // Some connection breaks, preferably one with something under way; or all of its link.
  void break_any() {
    if (slots_.peers() < 2) return;
    std::size_t at = some_end();
    for (int tries = 0; tries < 20 && !busy(at); ++tries) at = some_end();
    const bool all = random_.percent(25);
    for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
      const std::size_t other = slots_.index(slots_.owner(at), slots_.other(at), slot);
      if (all || other == at) repair_.break_one(other);
    }
  }
  void be_kind() { repair_.be_kind(); }
  // `number` learns that its link to `other` has ended: what was under way to it is lost.
  void link_down(std::size_t number, std::size_t other) {
    Side& side = slots_.side(number, other);
    if (std::exchange(side.down, true)) return;
    side.queue = SendQueue();
    for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
      const std::size_t at = slots_.index(number, other, slot);
      for (auto wire : {slots_[at].wire, slots_[at].call}) {
        if (wire) repair_.snap(at, wire);
      }
      if (slots_[at].wire) flow_.detach(at);
      slots_[at].call.reset();
    }
    if (!hosts_.alive(number)) return;
    hosts_.core(number).link_down(hosts_.id(other), events_.now);
    hosts_.take_actions(number);
  }
  // A process is gone: what it had not handed to its kernel never leaves.
  void crash(std::size_t number) {
    for (std::size_t other = 0; other < slots_.peers(); ++other) {
      if (other == number) continue;
      slots_.side(number, other).down = true;
      slots_.side(number, other).queue = SendQueue();
      for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
        End& end = slots_[slots_.index(number, other, slot)];
        end.batch.clear();
        end.half = false;
      }
    }
  }
  // All that `number` has said and can still say has reached those who can hear it: a polite end of a
  // link comes after what was sent before it on the connections that live, and who leaves mends none.
  [[nodiscard]] bool flushed(std::size_t number) {
    return on_all_slots(number, [this](std::size_t at) {
      const End& end = slots_[at];
      if (!end.wire || end.wire->broken) return true;
      return slots_.side_of(at).queue.empty() && end.batch.empty() && !end.book.again() &&
             slots_.outgoing(*end.wire, at).empty();
    });
  }
  // Something that `number` has said is lost with a connection that it does not mend any more.
  [[nodiscard]] bool owes(std::size_t number) {
    return !on_all_slots(number, [this](std::size_t at) {
      return slots_.side_of(at).queue.empty() && slots_[at].book.all_delivered();
    });
  }
  // Everything has come to rest: whatever was taken has arrived, where both ends still live.
  void check_end() {
    for (std::size_t one = 0; one < slots_.peers(); ++one) {
      for (std::size_t two = 0; two < slots_.peers(); ++two) {
        if (one == two || !hosts_.alive(one) || !hosts_.alive(two)) continue;
        if (slots_.side(one, two).down || slots_.side(two, one).down) continue;
        for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
          if (!slots_[slots_.index(one, two, slot)].book.all_delivered()) {
            failure_.report("a frame from peer " + std::to_string(one) + " to peer " +
                            std::to_string(two) + " never arrived");
          }
        }
      }
    }
  }

 private:
  std::size_t some_end() {
    const std::size_t one = random_.below(slots_.peers());
    const std::size_t two = (one + random_.between(1, slots_.peers() - 1)) % slots_.peers();
    return slots_.index(one, two, random_.below(slots_.slots()));
  }
  [[nodiscard]] bool busy(std::size_t at) {
    const End& end = slots_[at];
    return end.wire && (end.half || end.begun || !slots_.incoming(*end.wire, at).empty());
  }
  // Whether it holds for all ends of `number` whose other side lives.
  template <typename Predicate>
  bool on_all_slots(std::size_t number, Predicate holds) {
    for (std::size_t other = 0; other < slots_.peers(); ++other) {
      if (other == number || !hosts_.alive(other)) continue;
      if (slots_.side(other, number).down || slots_.side(number, other).down) continue;
      for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
        if (!holds(slots_.index(number, other, slot))) return false;
      }
    }
    return true;
  }

  Hosts& hosts_;
  Events& events_;
  Random& random_;
  Failure& failure_;
  Slots slots_;
  Flow flow_;
  Repair repair_;
};

}  // namespace reef::sim
