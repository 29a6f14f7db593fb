// How connections of simulated links break, and how the two ends mend them, by the rules of docs/wire.md
// ("A lost connection"): one side dials again, the other one too when it has lost all connections and knows
// the address; each says what it has received; attempts fail, are late, are given up and heard of
// nevertheless. What is not mended within the grace parts the two.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "sim/flow.h"

namespace reef::sim {

class Repair {
 public:
  struct Tally {
    std::uint64_t breaks = 0;
    std::uint64_t repairs = 0;   // by whoever dials
    std::uint64_t stale = 0;     // HELLOs that were shut out
    std::uint64_t hopeless = 0;  // links that ended because a connection was not mended in time
  };
  // link_down(number, other): that side's link has ended.
  using LinkDown = std::function<void(std::size_t, std::size_t)>;

  Repair(Hosts& hosts, Events& events, Random& random, Failure& failure, Slots& slots, Flow& flow,
         Mutation mutation, LinkDown link_down)
      : hosts_(hosts),
        events_(events),
        random_(random),
        failure_(failure),
        slots_(slots),
        flow_(flow),
        mutation_(mutation),
        link_down_(std::move(link_down)) {
    grace_ = random.between(300, random.percent(30) ? 1'500 : 10'000);
    notice_ = random.between(1, random.percent(50) ? 30 : 600);
    fails_ = random.percent(30) ? 0 : random.between(5, 80);
    brittle_ = random.percent(70) ? 0 : random.between(1, 40);
    both_dial_ = random.percent(50);
  }

  [[nodiscard]] const Tally& tally() const { return tally_; }
  // Attempts succeed from now on.
  void be_kind() { fails_ = brittle_ = 0; }

  void break_one(std::size_t at) {
    if (!slots_[at].wire || slots_[at].wire->broken) return;
    note("breaks", at);
    ++tally_.breaks;
    snap(at, slots_[at].wire);
  }
  // Of what is under way a part may still be read, unless nobody is there to read it; the two ends
  // notice, each in its time.
  void snap(std::size_t at, const std::shared_ptr<Wire>& wire) {
    if (wire->broken) return;
    wire->broken = true;
    for (auto& pipe : wire->pipes) pipe.resize(random_.below(pipe.size() + 1));
    notice_later(at, wire);
    notice_later(slots_.opposite(at), wire);
  }

 private:
  struct Greeting {
    std::uint32_t attempt = 0;
    std::uint64_t received = 0;
  };

  [[nodiscard]] bool over(std::size_t at) {
    return !hosts_.alive(slots_.owner(at)) || slots_.side_of(at).down;
  }
  // Who has dialled the link.
  [[nodiscard]] bool dials(std::size_t at) const {
    const std::size_t one = slots_.owner(at);
    const std::size_t two = slots_.other(at);
    return (one + two) % 2 == 0 ? one < two : one > two;
  }
  void note(const char* what, std::size_t at) {
    hosts_.note("connection " + std::to_string(at % slots_.slots()) + " of " +
                std::to_string(slots_.owner(at)) + " to " + std::to_string(slots_.other(at)) + " " +
                what);
  }

  // ---- losses ----
  void notice_later(std::size_t at, const std::shared_ptr<Wire>& wire) {
    flow_.when_it_runs(slots_.owner(at), random_.between(1, notice_), [this, at, wire] {
      if (slots_[at].wire == wire && !over(at)) lose(at);
    });
  }
  void empty(std::size_t at) {
    flow_.detach(at);
    watch(at, slots_[at].losses);
  }
  void lose(std::size_t at) {
    note("is lost", at);
    empty(at);
    if (dials(at)) return call_later(at, kFirstPause);
    if (!both_dial_) return;
    for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
      if (slots_[sibling(at, slot)].wire) return;
    }
    for (std::size_t slot = 0; slot < slots_.slots(); ++slot) {
      call_later(sibling(at, slot), kFirstPause);
    }
  }
  [[nodiscard]] std::size_t sibling(std::size_t at, std::size_t slot) const {
    return slots_.index(slots_.owner(at), slots_.other(at), slot);
  }
  // The end of patience.
  void watch(std::size_t at, std::uint64_t losses) {
    flow_.when_it_runs(slots_.owner(at), grace_, [this, at, losses] {
      End& end = slots_[at];
      if (end.wire || end.losses != losses || over(at)) return;
      if (hosts_.alive(slots_.other(at)) &&
          !hosts_.part(slots_.owner(at), slots_.other(at))) {
        be_kind();
        return watch(at, losses);
      }
      note("was not mended", at);
      ++tally_.hopeless;
      link_down_(slots_.owner(at), slots_.other(at));
    });
  }

  // ---- the side that dials ----
  void call_later(std::size_t at, std::uint64_t pause) {
    End& end = slots_[at];
    if (end.calling || end.call || end.wire) return;
    end.calling = true;
    const std::uint64_t wait = pause == kFirstPause ? flow_.delay() : pause;
    flow_.when_it_runs(slots_.owner(at), wait, [this, at, pause] {
      slots_[at].calling = false;
      call(at, pause);
    });
  }
  void call(std::size_t at, std::uint64_t pause) {
    if (slots_[at].wire || slots_[at].call || over(at)) return;
    const std::size_t other = slots_.other(at);
    if (!hosts_.alive(other) || slots_.side(other, slots_.owner(at)).down) {
      return refused(at);
    }
    greet(at, pause);
    if (!random_.percent(20)) return;
    // By another of its addresses, which has answered at the same time: the latest HELLO counts.
    flow_.when_it_runs(slots_.owner(at), flow_.delay(), [this, at, pause, first = slots_[at].call] {
      if (slots_[at].call != first || over(at)) return;
      if (mutation_ != Mutation::greets_twice) hang_up(at);
      greet(at, pause);
    });
  }
  void greet(std::size_t at, std::uint64_t pause) {
    note("is dialled again", at);
    End& end = slots_[at];
    const std::size_t other = slots_.other(at);
    const auto wire = std::make_shared<Wire>();
    wire->caller = at;
    wire->call = ++calls_;
    if (!end.call) end.call = wire;
    const Greeting hello{end.book.next_attempt(), end.book.received()};
    if (!random_.percent(fails_) || random_.percent(20)) {  // HELLO may come though it was given up
      flow_.when_it_runs(other, flow_.delay(), [this, at, hello, wire] {
        hear(slots_.opposite(at), hello, wire);
      });
    }
    const std::uint64_t patience = random_.between(1, random_.percent(fails_) ? 60 : 3'000);
    flow_.when_it_runs(slots_.owner(at), patience, [this, at, pause, wire] {
      if (slots_[at].call == wire) give_up(at, std::min<std::uint64_t>(2 * pause, 500));
    });
  }
  // Nobody is there, or the link is over there.
  void refused(std::size_t at) {
    const std::size_t other = slots_.other(at);
    note("is over on the other side", at);
    if (hosts_.exists(other) && !hosts_.alive(other)) hosts_.left_early(other);
    link_down_(slots_.owner(at), other);
  }
  void give_up(std::size_t at, std::uint64_t pause) {
    note("is not answered", at);
    hang_up(at);
    call_later(at, pause);
  }
  // The attempt is over; if the other side has adopted its connection, it finds it broken.
  void hang_up(std::size_t at) {
    if (const auto wire = std::exchange(slots_[at].call, nullptr)) snap(at, wire);
  }
  void answered(std::size_t at, const Greeting& ack, const std::shared_ptr<Wire>& wire) {
    if (slots_[at].call != wire || over(at)) return snap(at, wire);
    slots_[at].call.reset();
    ++tally_.repairs;
    adopt(at, ack, wire);
  }

  // ---- the side that is dialled ----
  void hear(std::size_t at, const Greeting& hello, const std::shared_ptr<Wire>& wire) {
    if (over(at)) return;  // whoever dials finds out
    End& end = slots_[at];
    if (dials(at) && end.call) {  // when both dial, the side that has dialled the link goes first
      if (wire->broken) return;
      flow_.when_it_runs(slots_.owner(at), 20, [this, at, hello, wire] { hear(at, hello, wire); });
      return;
    }
    if (!end.book.admits(hello.attempt)) {
      ++tally_.stale;
      const std::size_t caller = wire->caller;
      flow_.when_it_runs(slots_.owner(caller), flow_.delay(), [this, caller, wire] {
        if (slots_[caller].call == wire) give_up(caller, kFirstPause);
      });
      return;
    }
    const std::uint32_t attempt = end.book.admit(hello.attempt);
    if (end.wire) {
      if (end.wire->caller == wire->caller && end.wire->call > wire->call) {
        failure_.report("an attempt that was given up ended a newer connection");
      }
      const auto old = end.wire;
      empty(at);
      snap(at, old);
    }
    hang_up(at);
    const Greeting ack{attempt, end.book.received()};
    adopt(at, hello, wire);
    const std::size_t caller = wire->caller;
    flow_.when_it_runs(slots_.owner(caller), flow_.delay(),
                       [this, caller, ack, wire] { answered(caller, ack, wire); });
  }
  // A connection takes the place of the lost one.
  void adopt(std::size_t at, const Greeting& peer, const std::shared_ptr<Wire>& wire) {
    End& end = slots_[at];
    if (over(at) || end.wire) return snap(at, wire);
    note("is mended", at);
    end.book.established(peer.attempt);
    end.book.resume(peer.received);
    if (mutation_ == Mutation::resends_in_another_slot) {
      for (OutFrame& frame : end.book.take_all()) {
        slots_.side_of(at).anywhere.push_back(std::move(frame));
      }
    }
    end.wire = wire;
    flow_.begin(at);
    if (wire->broken) {
      notice_later(at, wire);
    } else if (random_.percent(brittle_)) {
      events_.after(random_.between(1, 200), [this, at, wire] {
        if (slots_[at].wire == wire) break_one(at);
      });
    }
  }

  static constexpr std::uint64_t kFirstPause = 20;

  Hosts& hosts_;
  Events& events_;
  Random& random_;
  Failure& failure_;
  Slots& slots_;
  Flow& flow_;
  Mutation mutation_;
  LinkDown link_down_;
  Tally tally_;
  std::uint64_t calls_ = 0;
  std::uint64_t grace_ = 0;
  std::uint64_t notice_ = 0;   // until an end knows of a loss, at most
  std::uint64_t fails_ = 0;    // percent of the attempts
  std::uint64_t brittle_ = 0;  // percent of the mended connections that break soon
  bool both_dial_ = false;
};

}  // namespace reef::sim
