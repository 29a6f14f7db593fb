// A whole run of atoll's collectives in one process: cores, their users, the network between them
// and the coordinator, with faults, all drawn from one seed. run() returns the first broken
// promise, or nothing. ATOLL_TRACE in the environment prints what happens.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "atoll/collective/core.h"
#include "sim/coordinator.h"
#include "sim/counters.h"
#include "sim/coverage.h"
#include "sim/events.h"
#include "sim/measured.h"
#include "sim/network.h"
#include "sim/program.h"
#include "sim/users.h"

namespace reef::sim {

class World final : private Hosts {
 public:
  explicit World(std::uint64_t seed, Mutation mutation = Mutation::none)
      : random_(seed),
        initial_(random_.between(1, 5)),
        total_(initial_ + random_.below(4)),
        program_{seed, static_cast<Channel>(random_.between(1, 3)), random_.between(2, 9)},
        tracing_(std::getenv("ATOLL_TRACE") != nullptr),
        network_(*this, events_, random_, failure_, total_, mutation),
        ledger_(seed, total_, failure_),
        users_(program_, *this, events_, random_, ledger_, failure_, total_),
        coordinator_(ports()) {
    options_.eager_bytes = random_.percent(30) ? 0 : random_.below(600);
    options_.flat_done_members = static_cast<Rank>(random_.percent(50) ? 1 : 8);
    options_.mesh_max_bytes = random_.below(60);
    options_.mesh_max_members = static_cast<Rank>(random_.between(2, 5));
    options_.doubling_max_bytes = random_.below(120);
    options_.direct_max_bytes = random_.below(300);
    options_.direct_max_part_bytes = random_.below(80);
    options_.chunk_bytes = 32;
    order_delay_ = random_.between(5, random_.percent(40) ? 20 : 400);
    notice_delay_ = random_.between(1, random_.percent(40) ? 20 : 600);
    spite_ = random_.percent(40) ? random_.between(1, 30) : 0;
    for (std::size_t number = 0; number < total_; ++number) add_peer();
  }

  std::string run() {
    for (std::size_t number = 0; number < initial_; ++number) users_.begin(number);
    std::vector<std::size_t> first;
    for (std::size_t number = 0; number < initial_; ++number) first.push_back(number);
    coordinator_.first_view(first);
    plan_faults();
    std::uint64_t steps = 0;
    while (!failure_.happened() && events_.step()) {
      if (++steps % 32 == 0) check_counters(*this, total_, ledger_, failure_);
      if (steps > 2'000'000) failure_.report("no end in sight");
    }
    if (!failure_.happened()) check_end();
    return failure_.what();
  }
  using Coverage = sim::Coverage;
  [[nodiscard]] Coverage coverage() const {
    Coverage sum = coverage_;
    sum.breaks = network_.repair().breaks;
    sum.repairs = network_.repair().repairs;
    sum.old_attempts = network_.repair().stale;
    sum.hopeless = network_.repair().hopeless;
    sum.resent = network_.flow().resent;
    sum.cut_short = network_.flow().cut_short;
    sum.thrown_away = network_.flow().thrown_away;
    for (const auto& peer : peers_) {
      sum.committed += peer->core->tally().ops_committed;
      sum.failed += peer->core->tally().ops_failed;
      sum.rerun += peer->core->tally().ops_rerun;
      sum.stale += peer->core->tally().stale_frames;
      sum.early += peer->core->tally().early_frames;
    }
    return sum;
  }

 private:
  static constexpr std::uint64_t kFaultTime = 12'000;

  struct Peer {
    PeerId id;
    std::unique_ptr<Core> core;
    bool alive = true;     // its process exists
    bool closed = false;
    Nanos stopped_until = 0;
    std::deque<Order> orders;
    std::deque<std::function<void()>> answers;
  };

  // --- Hosts
  Core& core(std::size_t number) override { return *peers_[number]->core; }
  bool alive(std::size_t number) const override {
    return peers_[number]->alive && !peers_[number]->closed;
  }
  bool exists(std::size_t number) const override { return peers_[number]->alive; }
  bool part(std::size_t one, std::size_t two) override {
    if (events_.now > static_cast<Nanos>(kFaultTime) || !may_lose(std::max(one, two))) return false;
    cut(one, two);
    return true;
  }
  void left_early(std::size_t number) override {
    events_.after(random_.between(1, notice_delay_), [this, number] { coordinator_.lost(number); });
  }
  void note(const std::string& what) override { trace("%s", what.c_str()); }
  Nanos stopped_until(std::size_t number) const override { return peers_[number]->stopped_until; }
  const PeerId& id(std::size_t number) const override { return peers_[number]->id; }

  void add_peer() {
    auto peer = std::make_unique<Peer>();
    peer->id.bytes[3] = static_cast<std::uint8_t>(peers_.size() + 1);
    peer->core = std::make_unique<Core>(peer->id, options_);
    peers_.push_back(std::move(peer));
  }
  std::size_t number_of(const PeerId& id) const { return id.bytes[3] - std::size_t{1}; }

  void on_peer(std::size_t number, std::uint64_t delay, std::function<void()> action) override {
    events_.after(delay, [this, number, action = std::move(action)]() mutable {
      if (!alive(number)) return;
      const Nanos until = peers_[number]->stopped_until;
      if (until > events_.now) {
        on_peer(number, static_cast<std::uint64_t>(until - events_.now), std::move(action));
        return;
      }
      action();
      take_actions(number);
    });
  }

  // --- the coordinator's streams
  Coordinator::Ports ports() {
    Coordinator::Ports ports;
    ports.send = [this](std::size_t number, Order order) {
      if (!peers_[number]->alive) return;
      peers_[number]->orders.push_back(std::move(order));
      on_peer(number, order_delay(), [this, number] { obey(number); });
    };
    ports.supersede = [this] {
      for (auto& peer : peers_) {
        if (!random_.percent(40)) continue;
        std::erase_if(peer->orders, [](const Order& order) {
          return !std::holds_alternative<ExpelOrder>(order);
        });
      }
    };
    ports.announce = [this](Epoch epoch, const Coordinator::Numbers& members) {
      trace("view %llu of %zu", static_cast<unsigned long long>(epoch), members.size());
      ledger_.view(epoch, members);
    };
    ports.id = [this](std::size_t number) { return peers_[number]->id; };
    ports.measured = [this](Epoch epoch, Rank members) -> std::shared_ptr<const Topology> {
      if (members < 2 || (program_.seed + epoch) % 3 != 0) return nullptr;
      return two_sites(members);
    };
    return ports;
  }
  std::uint64_t order_delay() { return random_.between(1, order_delay_); }
  void obey(std::size_t number) {
    Peer& peer = *peers_[number];
    if (peer.orders.empty()) return;
    tempt();
    const Order order = std::move(peer.orders.front());
    peer.orders.pop_front();
    if (const auto* fence = std::get_if<FenceOrder>(&order)) {
      trace("peer %zu fenced, attempt %llu %s", number,
            static_cast<unsigned long long>(fence->attempt),
            fence->kind == Change::abort ? "abort" : "drain");
      peer.core->fence(fence->attempt, fence->kind, events_.now);
    } else if (const auto* install = std::get_if<InstallOrder>(&order)) {
      trace("peer %zu installs %llu %s", number,
            static_cast<unsigned long long>(install->view.epoch),
            install->kind == Change::abort ? "abort" : "drain");
      ++(install->kind == Change::abort ? coverage_.aborts : coverage_.drains);
      users_.will_begin_at(number, install->starts);
      peer.core->install(install->view, install->starts, install->kind, events_.now);
    } else {
      close(number);
      return;
    }
    peer.core->tick(events_.now);
  }
  // What a peer says to the coordinator keeps its order, too.
  void answer(std::size_t number, std::function<void()> message) {
    peers_[number]->answers.push_back(std::move(message));
    events_.after(order_delay(), [this, number] {
      const auto said = std::move(peers_[number]->answers.front());
      peers_[number]->answers.pop_front();
      said();
    });
  }

  // --- the cores' actions
  void take_actions(std::size_t number) override {
    Action action;
    while (peers_[number]->core->next(action)) handle(number, action);
  }
  void handle(std::size_t number, Action& action) {
    if (auto* send = std::get_if<Send>(&action)) {
      network_.send(number, number_of(send->to), std::move(*send));
    } else if (const auto* ready = std::get_if<DataReady>(&action)) {
      network_.data_ready(number, number_of(ready->peer));
    } else if (const auto* release = std::get_if<Release>(&action)) {
      users_.released(number, release->op);
      network_.release(number, release->op);
    } else if (const auto* complete = std::get_if<Complete>(&action)) {
      const UserOp& op = users_.op(number, complete->op);
      trace("peer %zu: op %llu of channel %u ends %s in epoch %llu", number,
            static_cast<unsigned long long>(complete->sequence), op.channel,
            code_name(complete->code), static_cast<unsigned long long>(complete->epoch));
      if (complete->code == Code::deadline || complete->code == Code::aborted) tempt();
      users_.completed(number, *complete);
    } else if (const auto* fenced = std::get_if<Fenced>(&action)) {
      answer(number, [this, number, copy = *fenced] { coordinator_.fenced(number, copy); });
    } else if (const auto* installed = std::get_if<Installed>(&action)) {
      trace("peer %zu has installed %llu%s", number,
            static_cast<unsigned long long>(installed->epoch), installed->member ? "" : ", absent");
      answer(number, [this, number, copy = *installed] { coordinator_.installed(number, copy); });
      if (!installed->member) {
        on_peer(number, random_.between(1, 300), [this, number] { close(number); });
      } else {
        users_.begin(number);
      }
    } else if (const auto* blame = std::get_if<Blame>(&action)) {
      failure_.report("an honest peer was blamed: " + blame->error.message);
    }
  }
  // --- faults
  void plan_faults() {
    if (random_.percent(10)) return;
    for (std::uint64_t count = random_.below(7); count > 0; --count) {
      events_.after(random_.below(kFaultTime), [this] { fault(); });
    }
    if (random_.percent(70)) {
      for (std::uint64_t count = random_.below(random_.percent(30) ? 60 : 8); count > 0; --count) {
        events_.after(random_.below(kFaultTime), [this] { network_.break_any(); });
      }
    }
    events_.after(2 * kFaultTime, [this] { network_.be_kind(); });
    for (std::size_t number = initial_; number < total_; ++number) {
      events_.after(random_.below(kFaultTime), [this, number] {
        if (alive(number)) coordinator_.wants_to_join(number);
      });
    }
    for (std::uint64_t count = random_.below(6); count > 0; --count) {
      events_.after(random_.below(kFaultTime), [this] { users_.pair_up(); });
    }
  }
  void fault() {
    const std::size_t victim = random_.below(total_);
    if (!alive(victim)) return;
    switch (random_.below(5)) {
      case 0:
      case 1: return crash(victim);
      case 2: return stop(victim);
      case 3: return cut(victim, random_.below(total_));
      default: return leave(victim);
    }
  }
  // Somebody has to be left.
  bool may_lose(std::size_t victim) {
    for (std::size_t member : coordinator_.staying()) {
      if (member != victim && !doomed_.contains(member) && alive(member)) return true;
    }
    return false;
  }
  // A delicate moment: a view is changing, an op has failed.
  void tempt() {
    if (events_.now > static_cast<Nanos>(kFaultTime) || !random_.percent(spite_)) return;
    const std::size_t victim = random_.below(total_);
    events_.after(random_.between(1, 100), [this, victim] {
      if (alive(victim)) crash(victim);
    });
  }
  void crash(std::size_t victim) {
    if (!may_lose(victim)) return;
    trace("peer %zu crashes", victim);
    peers_[victim]->alive = false;
    network_.crash(victim);
    lose(victim);
  }
  void stop(std::size_t victim) {
    const std::uint64_t time = random_.between(100, 6'000);
    trace("peer %zu stops for %llu", victim, static_cast<unsigned long long>(time));
    peers_[victim]->stopped_until = events_.now + static_cast<Nanos>(time);
    if (random_.percent(50) && may_lose(victim)) expel(victim);
  }
  void cut(std::size_t one, std::size_t two) {
    if (one == two || !may_lose(std::max(one, two))) return;
    trace("peers %zu and %zu lose one another", one, two);
    on_peer(one, random_.between(1, 400), [this, one, two] { network_.link_down(one, two); });
    on_peer(two, random_.between(1, 400), [this, one, two] { network_.link_down(two, one); });
    expel(std::max(one, two));
  }
  // The coordinator gives up a peer that lives.
  void expel(std::size_t victim) {
    lose(victim);
    on_peer(victim, random_.between(1, 3'000), [this, victim] { close(victim); });
  }
  void lose(std::size_t victim) {
    doomed_.insert(victim);
    ledger_.out(victim);
    events_.after(random_.between(1, notice_delay_), [this, victim] { coordinator_.lost(victim); });
    break_links(victim);
  }
  void break_links(std::size_t victim) {
    for (std::size_t other = 0; other < total_; ++other) {
      if (other == victim) continue;
      on_peer(other, random_.between(1, 2'000),
              [this, other, victim] { network_.link_down(other, victim); });
    }
  }
  void leave(std::size_t victim) {
    if (!may_lose(victim)) return;
    trace("peer %zu wants to leave", victim);
    coordinator_.wants_to_leave(victim);
  }
  void close(std::size_t number) {
    if (peers_[number]->closed) return;
    trace("peer %zu closes", number);
    peers_[number]->core->close();
    take_actions(number);
    peers_[number]->closed = true;
    say_bye(number);
  }
  void say_bye(std::size_t number) {
    events_.after(random_.between(50, 500), [this, number] {
      if (!network_.flushed(number)) return say_bye(number);
      if (network_.owes(number)) left_early(number);
      break_links(number);
    });
  }

  // --- promises
  void check_end() {
    network_.check_end();
    if (!coordinator_.quiet()) failure_.report("a change of the view never ended");
    const Coordinator::Numbers& members = coordinator_.members();
    for (std::size_t number = 0; number < total_; ++number) {
      const bool member = std::find(members.begin(), members.end(), number) != members.end();
      if (member && !alive(number)) {
        failure_.report("peer " + std::to_string(number) + " is a member, and gone");
      }
      users_.check_end(number, member);
    }
  }

  template <typename... Arguments>
  void trace(const char* format, Arguments... arguments) {
    if (!tracing_) return;
    std::fprintf(stderr, "%8lld ", static_cast<long long>(events_.now));
    if constexpr (sizeof...(arguments) == 0) {
      std::fputs(format, stderr);
    } else {
      std::fprintf(stderr, format, arguments...);
    }
    std::fputc('\n', stderr);
  }

  Random random_;
  std::size_t initial_;
  std::size_t total_;  // peers that ever live
  Users::Program program_;
  bool tracing_;
  Events events_;
  Failure failure_;
  CoreOptions options_;
  std::vector<std::unique_ptr<Peer>> peers_;
  Network network_;
  Ledger ledger_;
  Users users_;
  Coordinator coordinator_;
  std::uint64_t order_delay_ = 1;   // of the coordinator's streams
  std::uint64_t notice_delay_ = 1;  // until a loss is known
  std::uint64_t spite_ = 0;         // percent of the delicate moments at which somebody crashes
  std::set<std::size_t> doomed_;
  Coverage coverage_;
};

}  // namespace reef::sim
