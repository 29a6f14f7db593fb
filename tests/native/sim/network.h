// The shells and wires of simulated peers. Between two peers run several connections: each keeps
// its order, together they do not. A frame's bytes are read from the sender's buffer when it is
// transmitted, not when the core asks; they are written to where the receiver's core wants them in
// two halves, with other events between place(), the halves and deliver().
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "atoll/collective/core.h"
#include "sim/events.h"

namespace reef::sim {

// What the network needs of the peers; `number` counts all that ever live.
class Hosts {
 public:
  virtual ~Hosts() = default;
  virtual Core& core(std::size_t number) = 0;
  [[nodiscard]] virtual bool alive(std::size_t number) const = 0;
  // Until when the peer's process is stopped; 0: it runs.
  [[nodiscard]] virtual Nanos stopped_until(std::size_t number) const = 0;
  [[nodiscard]] virtual const PeerId& id(std::size_t number) const = 0;
  // After every call into a core: its actions wait.
  virtual void take_actions(std::size_t number) = 0;
  // Runs `action` after a delay, when the peer's process runs, if it lives then.
  virtual void on_peer(std::size_t number, std::uint64_t delay, std::function<void()> action) = 0;
};

class Network {
 public:
  Network(Hosts& hosts, Events& events, Random& random, Failure& failure, std::size_t peers)
      : hosts_(hosts), events_(events), random_(random), failure_(failure), peers_(peers) {
    connections_ = random.between(1, 3);
    pace_ = random.between(2, 60);
    wires_.resize(peers * peers * connections_);
    down_.resize(peers * peers, false);
  }

  void send(std::size_t from, std::size_t to, Send&& send) {
    if (down_[from * peers_ + to]) return;
    const std::size_t wire = index(from, to, random_.below(connections_));
    wires_[wire].queue.push_back(std::move(send));
    transmit_later(wire);
  }
  // The core wants its buffers back.
  void release(std::size_t number, OpId op) {
    for (std::size_t other = 0; other < peers_; ++other) {
      for (std::size_t i = 0; i < connections_; ++i) {
        std::erase_if(wires_[index(number, other, i)].queue,
                      [op](const Send& queued) { return queued.op == op; });
        Wire& incoming = wires_[index(other, number, i)];
        if (incoming.receiving_op == op) {
          incoming.place = {};
          incoming.receiving_op = 0;
        }
      }
    }
  }
  // `number` learns that its link to `other` has ended: what was under way to it is lost.
  void link_down(std::size_t number, std::size_t other) {
    if (down_[number * peers_ + other]) return;
    down_[number * peers_ + other] = true;
    for (std::size_t i = 0; i < connections_; ++i) {
      wires_[index(number, other, i)].queue.clear();
      Wire& incoming = wires_[index(other, number, i)];
      incoming.arriving.clear();
      incoming.place = {};
      incoming.receiving_op = 0;
      incoming.receiving = false;
      ++incoming.generation;
    }
    if (!hosts_.alive(number)) return;
    hosts_.core(number).link_down(hosts_.id(other), events_.now);
    hosts_.take_actions(number);
  }
  [[nodiscard]] bool is_down(std::size_t number, std::size_t other) const {
    return down_[number * peers_ + other];
  }
  // A process is gone: what it had not handed to its kernel never leaves.
  void crash(std::size_t number) {
    for (std::size_t other = 0; other < peers_; ++other) {
      for (std::size_t i = 0; i < connections_; ++i) {
        wires_[index(number, other, i)].queue.clear();
        Wire& incoming = wires_[index(other, number, i)];
        incoming.place = {};
        incoming.receiving_op = 0;
      }
    }
  }
  // All that `number` has said has reached those who can hear it. (A polite end of a link comes
  // after what was sent before it, on all connections.)
  [[nodiscard]] bool flushed(std::size_t number) const {
    for (std::size_t other = 0; other < peers_; ++other) {
      if (!hosts_.alive(other) || is_down(other, number)) continue;
      for (std::size_t i = 0; i < connections_; ++i) {
        const Wire& wire = wires_[index(number, other, i)];
        if (!wire.queue.empty() || !wire.arriving.empty()) return false;
      }
    }
    return true;
  }

 private:
  struct Arriving {
    FrameHeader header;
    std::vector<std::byte> bytes;
  };
  struct Wire {
    std::deque<Send> queue;          // at the sender, by reference
    std::deque<Arriving> arriving;   // under way, copied
    std::span<std::byte> place;      // where the first of them is being received
    OpId receiving_op = 0;
    bool transmitting = false;
    bool receiving = false;
    std::uint64_t generation = 0;
  };

  [[nodiscard]] std::size_t index(std::size_t from, std::size_t to, std::size_t i) const {
    return (from * peers_ + to) * connections_ + i;
  }
  [[nodiscard]] std::size_t sender(std::size_t wire) const {
    return wire / connections_ / peers_;
  }
  [[nodiscard]] std::size_t receiver(std::size_t wire) const {
    return wire / connections_ % peers_;
  }
  std::uint64_t delay() {
    return random_.percent(3) ? random_.between(1, 20 * pace_) : random_.between(1, pace_);
  }
  // How long the peer is still stopped.
  std::uint64_t stopped(std::size_t number) const {
    const Nanos until = hosts_.stopped_until(number);
    return until > events_.now ? static_cast<std::uint64_t>(until - events_.now) : 0;
  }

  void transmit_later(std::size_t wire) {
    if (wires_[wire].transmitting) return;
    wires_[wire].transmitting = true;
    events_.after(delay() + stopped(sender(wire)), [this, wire] { transmit(wire); });
  }
  void transmit(std::size_t wire) {
    Wire& at = wires_[wire];
    at.transmitting = false;
    if (at.queue.empty()) return;
    if (stopped(sender(wire)) > 0) return transmit_later(wire);
    for (std::uint64_t burst = random_.between(1, 4); burst > 0 && !at.queue.empty(); --burst) {
      Send send = std::move(at.queue.front());
      at.queue.pop_front();
      const std::span<const std::byte> bytes =
          send.owned.empty() ? send.payload : std::span<const std::byte>(send.owned);
      if (!down_[receiver(wire) * peers_ + sender(wire)]) {
        at.arriving.push_back({send.header, {bytes.begin(), bytes.end()}});
      }
    }
    receive_later(wire);
    if (!at.queue.empty()) transmit_later(wire);
  }

  void receive_later(std::size_t wire) {
    Wire& at = wires_[wire];
    if (at.receiving || at.arriving.empty()) return;
    at.receiving = true;
    events_.after(delay() + stopped(receiver(wire)),
                  [this, wire, generation = at.generation] { header(wire, generation); });
  }
  [[nodiscard]] bool void_event(std::size_t wire, std::uint64_t generation) const {
    return wires_[wire].generation != generation || !hosts_.alive(receiver(wire));
  }
  void header(std::size_t wire, std::uint64_t generation) {
    if (void_event(wire, generation)) return;
    if (const std::uint64_t wait = stopped(receiver(wire)); wait > 0) {
      events_.after(wait, [this, wire, generation] { header(wire, generation); });
      return;
    }
    Wire& at = wires_[wire];
    const Arriving& frame = at.arriving.front();
    OpId op = 0;
    at.place = hosts_.core(receiver(wire)).place(hosts_.id(sender(wire)), frame.header, op);
    at.receiving_op = op;
    if (!at.place.empty()) {
      if (at.place.size() != frame.bytes.size()) failure_.report("place() gave another size");
      std::memcpy(at.place.data(), frame.bytes.data(), frame.bytes.size() / 2);
    }
    events_.after(random_.percent(70) ? 0 : delay(),
                  [this, wire, generation] { payload(wire, generation); });
  }
  void payload(std::size_t wire, std::uint64_t generation) {
    if (void_event(wire, generation)) return;
    if (const std::uint64_t wait = stopped(receiver(wire)); wait > 0) {
      events_.after(wait, [this, wire, generation] { payload(wire, generation); });
      return;
    }
    Wire& at = wires_[wire];
    const Arriving frame = std::move(at.arriving.front());
    at.arriving.pop_front();
    std::span<const std::byte> bytes = frame.bytes;
    if (!at.place.empty()) {
      const std::size_t half = bytes.size() / 2;
      std::memcpy(at.place.data() + half, bytes.data() + half, bytes.size() - half);
      bytes = at.place;
    }
    at.place = {};
    at.receiving_op = 0;
    at.receiving = false;
    const std::size_t to = receiver(wire);
    const Status status =
        hosts_.core(to).deliver(hosts_.id(sender(wire)), frame.header, bytes, events_.now);
    if (!status.ok()) failure_.report("an honest frame was refused: " + status.error().message);
    hosts_.take_actions(to);
    receive_later(wire);
  }

  Hosts& hosts_;
  Events& events_;
  Random& random_;
  Failure& failure_;
  std::size_t peers_;
  std::size_t connections_;
  std::uint64_t pace_;
  std::vector<Wire> wires_;
  std::vector<bool> down_;  // [number][other]: number holds its link to other for lost
};

}  // namespace reef::sim
