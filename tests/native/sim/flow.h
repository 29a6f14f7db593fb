// How frames go over the connections of simulated links. Each connection keeps its order, together
// they do not. A frame's bytes are read from the sender's buffer when it is written, in one go or in two,
// not when the core asks; they are received to where the receiver's core wants them in two halves,
// with other events between place(), the halves and deliver(). What is written is kept in the slot's
// log until it is acknowledged.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "atoll/engine/frame_of.h"
#include "sim/hosts.h"
#include "sim/slots.h"

namespace reef::sim {

class Flow {
 public:
  struct Tally {
    std::uint64_t resent = 0;       // frames that were taken again
    std::uint64_t cut_short = 0;    // frames of which a part had arrived, or been written
    std::uint64_t thrown_away = 0;  // frames whose op was released while they were received
  };

  Flow(Hosts& hosts, Events& events, Random& random, Failure& failure, Slots& slots,
       Mutation mutation)
      : hosts_(hosts),
        events_(events),
        random_(random),
        failure_(failure),
        slots_(slots),
        mutation_(mutation) {
    pace_ = random.between(2, 60);
  }

  [[nodiscard]] const Tally& tally() const { return tally_; }
  std::uint64_t delay() {
    return random_.percent(3) ? random_.between(1, 20 * pace_) : random_.between(1, pace_);
  }
  // Runs `action` after a delay, when the peer's process runs, whether its core lives or not.
  void when_it_runs(std::size_t number, std::uint64_t delay, std::function<void()> action) {
    events_.after(delay + stopped(number), [this, number, action = std::move(action)]() mutable {
      if (stopped(number) > 0) return when_it_runs(number, 0, std::move(action));
      action();
    });
  }
  void kick(std::size_t number, std::size_t other) {
    for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
      transmit_later(slots_.index(number, other, slot));
    }
  }
  // Both directions, after the end has adopted a connection.
  void begin(std::size_t at) {
    transmit_later(at);
    receive_later(at);
  }
  // The op's buffers are not touched any more: what is half written is finished from a copy, what is
  // half received is thrown away.
  void forget(std::size_t at, OpId op) {
    End& end = slots_[at];
    end.book.forget(op);
    if (end.begun && end.receiving_op == op) {
      end.thrown_away = true;
      end.place = {};
      end.receiving_op = 0;
    }
    if (end.half && end.batch.front().op == op) {
      OutFrame& frame = end.batch.front();
      frame.owned.assign(frame.payload.begin(), frame.payload.end());
      frame.payload = frame.owned;
      frame.op = 0;
    }
    std::erase_if(end.batch, [op](const OutFrame& frame) { return frame.op == op; });
  }
  // This end gives its connection up.
  void detach(std::size_t at) {
    End& end = slots_[at];
    if (end.half || end.begun) ++tally_.cut_short;
    if (end.begun && mutation_ == Mutation::counts_half_a_frame) end.book.arrived(1);
    end.begun = end.receiving = end.thrown_away = false;
    end.place = {};
    end.receiving_op = 0;
    end.half = false;
    end.book.lost({std::make_move_iterator(end.batch.begin()),
                   std::make_move_iterator(end.batch.end())});
    end.batch.clear();
    end.wire.reset();
    ++end.losses;
  }

 private:
  // How long the peer is still stopped.
  std::uint64_t stopped(std::size_t number) const {
    const Nanos until = hosts_.stopped_until(number);
    return until > events_.now ? static_cast<std::uint64_t>(until - events_.now) : 0;
  }

  // ---- sending ----
  void transmit_later(std::size_t at) {
    End& end = slots_[at];
    if (end.transmitting || !end.wire || !hosts_.exists(slots_.owner(at))) return;
    end.transmitting = true;
    when_it_runs(slots_.owner(at), delay(), [this, at] { transmit(at); });
  }
  void transmit(std::size_t at) {
    End& end = slots_[at];
    end.transmitting = false;
    if (!end.wire || !hosts_.exists(slots_.owner(at))) return;
    if (end.batch.empty()) {
      refill(at);
      if (end.batch.empty()) return;
      // What is taken may wait for a while before it is written, as in a real connection.
      if (random_.percent(50)) return transmit_later(at);
    }
    for (std::uint64_t burst = random_.between(1, 4); burst > 0 && !end.batch.empty(); --burst) {
      write(at);
    }
    if (!end.batch.empty() && !end.half && random_.percent(40)) {
      const auto payload = end.batch.front().payload;
      end.half = true;
      end.first_half.assign(payload.begin(), payload.begin() + payload.size() / 2);
    }
    receive_later(slots_.opposite(at));
    transmit_later(at);
  }
  bool take(std::size_t at, OutFrame& frame) {
    End& end = slots_[at];
    std::vector<OutFrame>& anywhere = slots_.side_of(at).anywhere;
    if (!anywhere.empty()) {
      frame = std::move(anywhere.front());
      anywhere.erase(anywhere.begin());
      return resent();
    }
    const bool late = mutation_ == Mutation::resends_after_new_frames;
    if (!late && end.book.take_again(frame)) return resent();
    const auto pull = [this, at](OutFrame& data) { return pull_data(at, data); };
    if (!end.book.full() && slots_.side_of(at).queue.take(frame, pull)) {
      end.book.enter(frame);
      return true;
    }
    return late && end.book.take_again(frame) && resent();
  }
  bool resent() {
    ++tally_.resent;
    return true;
  }
  bool pull_data(std::size_t at, OutFrame& frame) {
    const std::size_t from = slots_.owner(at);
    if (!hosts_.alive(from)) return false;
    Send data;
    if (!hosts_.core(from).pull(hosts_.id(slots_.other(at)), data)) return false;
    frame = frame_of(data);
    return true;
  }
  void refill(std::size_t at) {
    End& end = slots_[at];
    if (slots_.side_of(at).down) return;
    if (end.book.unacknowledged() && random_.percent(30)) {
      FrameHeader header;
      header.sequence = end.book.acknowledge();
      OutFrame beat;
      beat.header = encode_header(header);
      end.batch.push_back(std::move(beat));
    }
    OutFrame frame;
    for (std::uint64_t room = random_.between(1, 4); room > 0 && take(at, frame); --room) {
      end.batch.push_back(std::move(frame));
      if (mutation_ == Mutation::overtakes_in_a_connection && random_.percent(10)) {
        std::swap(end.batch.front(), end.batch.back());
      }
    }
  }
  // Writes the first frame whole.
  void write(std::size_t at) {
    End& end = slots_[at];
    OutFrame frame = std::move(end.batch.front());
    end.batch.pop_front();
    end.book.reads(frame);
    Flight flight;
    flight.header = frame.header;
    flight.bytes.assign(frame.payload.begin(), frame.payload.end());
    if (std::exchange(end.half, false)) {
      std::copy(end.first_half.begin(), end.first_half.end(), flight.bytes.begin());
    }
    if (frame.keep) flight.number = Book::number(frame);
    if (!end.wire->broken) slots_.outgoing(*end.wire, at).push_back(std::move(flight));
    end.book.wrote(std::move(frame));
  }

  // ---- receiving ----
  void receive_later(std::size_t at) {
    End& end = slots_[at];
    if (end.receiving || !end.wire || slots_.incoming(*end.wire, at).empty()) return;
    end.receiving = true;
    when_it_runs(slots_.owner(at), delay(), [this, at, wire = end.wire] { header(at, wire); });
  }
  // This end has given the connection up, or what is under way was lost with it.
  [[nodiscard]] bool cannot_receive(std::size_t at, const std::shared_ptr<Wire>& wire) const {
    return slots_[at].wire != wire || !hosts_.alive(slots_.owner(at)) ||
           slots_.incoming(*wire, at).empty();
  }
  void header(std::size_t at, const std::shared_ptr<Wire>& wire) {
    if (cannot_receive(at, wire)) return;
    End& end = slots_[at];
    const Flight& frame = slots_.incoming(*wire, at).front();
    const FrameHeader header = parse_header(frame.header).value();
    end.begun = true;
    if (header.type == FrameType::data) {
      const std::size_t from = slots_.other(at);
      end.place =
          hosts_.core(slots_.owner(at)).place(hosts_.id(from), header, end.receiving_op);
    }
    if (!end.place.empty()) {
      if (end.place.size() != frame.bytes.size()) {
        failure_.report("place() gave another size");
        return;
      }
      std::memcpy(end.place.data(), frame.bytes.data(), frame.bytes.size() / 2);
    }
    when_it_runs(slots_.owner(at), random_.percent(70) ? 0 : delay(),
                 [this, at, wire] { payload(at, wire); });
  }
  void payload(std::size_t at, const std::shared_ptr<Wire>& wire) {
    if (cannot_receive(at, wire)) return;
    End& end = slots_[at];
    const Flight frame = std::move(slots_.incoming(*wire, at).front());
    slots_.incoming(*wire, at).pop_front();
    std::span<const std::byte> bytes = frame.bytes;
    if (!end.place.empty()) {
      const std::size_t half = bytes.size() / 2;
      std::memcpy(end.place.data() + half, bytes.data() + half, bytes.size() - half);
      bytes = end.place;
    }
    const bool thrown_away = std::exchange(end.thrown_away, false);
    end.place = {};
    end.receiving_op = 0;
    end.begun = end.receiving = false;
    deliver(at, frame, bytes, thrown_away);
    receive_later(at);
  }
  void deliver(std::size_t at, const Flight& frame, std::span<const std::byte> bytes,
               bool thrown_away) {
    End& end = slots_[at];
    const FrameHeader header = parse_header(frame.header).value();
    if (frame.number == 0) {
      if (mutation_ == Mutation::counts_heartbeats) end.book.arrived(kHeaderBytes);
      end.book.acknowledged(header.sequence);
      return;
    }
    end.book.arrived(kHeaderBytes + bytes.size());
    slots_[slots_.opposite(at)].book.delivered(frame.number);
    if (random_.percent(20)) transmit_later(at);  // an acknowledgement
    if (thrown_away) {
      ++tally_.thrown_away;
      return;
    }
    const std::size_t to = slots_.owner(at);
    const Status status =
        hosts_.core(to).deliver(hosts_.id(slots_.other(at)), header, bytes, events_.now);
    if (!status.ok()) failure_.report("an honest frame was refused: " + status.error().message);
    hosts_.take_actions(to);
  }

  Hosts& hosts_;
  Events& events_;
  Random& random_;
  Failure& failure_;
  Slots& slots_;
  Mutation mutation_;
  Tally tally_;
  std::uint64_t pace_ = 1;
};

}  // namespace reef::sim
