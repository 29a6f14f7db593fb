// A whole run of atoll's collectives in one process: cores, their users, the network between them and
// the coordinator, with faults, all drawn from one seed. run() returns the first broken promise, or
// nothing. ATOLL_TRACE in the environment prints what happens.
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
#include "sim/events.h"
#include "sim/network.h"
#include "sim/program.h"

namespace reef::sim {

class World final : private Hosts {
 public:
  explicit World(std::uint64_t seed)
      : seed_(seed),
        random_(seed),
        initial_(random_.between(1, 5)),
        total_(initial_ + random_.below(4)),
        channels_(static_cast<Channel>(random_.between(1, 3))),
        ops_(random_.between(2, 9)),
        tracing_(std::getenv("ATOLL_TRACE") != nullptr),
        network_(*this, events_, random_, failure_, total_),
        ledger_(seed, total_, failure_),
        coordinator_(ports()) {
    options_.eager_bytes = random_.percent(30) ? 0 : random_.below(600);
    options_.direct_max_bytes = random_.below(300);
    options_.chunk_bytes = 32;
    order_delay_ = random_.between(5, random_.percent(40) ? 20 : 400);
    notice_delay_ = random_.between(1, random_.percent(40) ? 20 : 600);
    spite_ = random_.percent(40) ? random_.between(1, 30) : 0;
    for (std::size_t number = 0; number < total_; ++number) add_peer();
  }

  std::string run() {
    for (std::size_t number = 0; number < initial_; ++number) begin_user(number);
    std::vector<std::size_t> first;
    for (std::size_t number = 0; number < initial_; ++number) first.push_back(number);
    coordinator_.first_view(first);
    plan_faults();
    std::uint64_t steps = 0;
    while (!failure_.happened() && events_.step()) {
      if (++steps % 32 == 0) check_counters();
      if (steps > 2'000'000) failure_.report("no end in sight");
    }
    if (!failure_.happened()) check_end();
    return failure_.what();
  }
  struct Coverage {
    std::uint64_t committed = 0, failed = 0, rerun = 0, stale = 0, early = 0, aborts = 0, drains = 0;
  };
  [[nodiscard]] Coverage coverage() const {
    Coverage sum = coverage_;
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

  struct UserOp {
    Channel channel = 0;
    Sequence sequence = 0;  // exchange: the tag
    bool exchange = false;
    std::size_t partner = 0;
    std::vector<float> in;
    std::vector<float> out;
    bool over = false;
  };
  struct Peer {
    PeerId id;
    std::unique_ptr<Core> core;
    bool alive = true;     // its process exists
    bool closed = false;
    bool user = false;     // its user has begun
    Nanos stopped_until = 0;
    std::deque<Order> orders;
    std::deque<std::function<void()>> answers;
    std::map<OpId, UserOp> ops;
    std::map<Channel, Sequence> next;
    std::map<Channel, std::size_t> outstanding;
    OpId released = 0;
  };

  // --- Hosts
  Core& core(std::size_t number) override { return *peers_[number]->core; }
  bool alive(std::size_t number) const override {
    return peers_[number]->alive && !peers_[number]->closed;
  }
  Nanos stopped_until(std::size_t number) const override { return peers_[number]->stopped_until; }
  const PeerId& id(std::size_t number) const override { return peers_[number]->id; }

  void add_peer() {
    auto peer = std::make_unique<Peer>();
    peer->id.bytes[3] = static_cast<std::uint8_t>(peers_.size() + 1);
    peer->core = std::make_unique<Core>(peer->id, options_);
    peers_.push_back(std::move(peer));
  }
  std::size_t number_of(const PeerId& id) const { return id.bytes[3] - std::size_t{1}; }

  // Runs `action` when the peer's process runs, if it lives then.
  void on_peer(std::size_t number, std::uint64_t delay, std::function<void()> action) {
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
      if (!peer.user) {
        for (const auto& [channel, start] : install->starts) peer.next[channel] = start;
      }
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
    Peer& peer = *peers_[number];
    if (auto* send = std::get_if<Send>(&action)) {
      network_.send(number, number_of(send->to), std::move(*send));
    } else if (const auto* release = std::get_if<Release>(&action)) {
      peer.released = release->op;
      network_.release(number, release->op);
    } else if (const auto* complete = std::get_if<Complete>(&action)) {
      completed(number, *complete);
    } else if (const auto* fenced = std::get_if<Fenced>(&action)) {
      answer(number, [this, number, copy = *fenced] { coordinator_.fenced(number, copy); });
    } else if (const auto* installed = std::get_if<Installed>(&action)) {
      trace("peer %zu has installed %llu%s", number,
            static_cast<unsigned long long>(installed->epoch), installed->member ? "" : ", absent");
      answer(number, [this, number, copy = *installed] { coordinator_.installed(number, copy); });
      if (!installed->member) {
        on_peer(number, random_.between(1, 300), [this, number] { close(number); });
      } else if (!peer.user) {
        begin_user(number);
      }
    } else if (const auto* blame = std::get_if<Blame>(&action)) {
      failure_.report("an honest peer was blamed: " + blame->error.message);
    }
  }
  void completed(std::size_t number, const Complete& end) {
    Peer& peer = *peers_[number];
    UserOp& op = peer.ops.at(end.op);
    trace("peer %zu: op %llu of channel %u ends %s in epoch %llu", number,
          static_cast<unsigned long long>(end.sequence), op.channel, code_name(end.code),
          static_cast<unsigned long long>(end.epoch));
    if (end.code == Code::deadline || end.code == Code::aborted) tempt();
    if (op.over) failure_.report("an op completed twice");
    if (peer.released != end.op) failure_.report("no Release before a Complete");
    op.over = true;
    if (end.sequence != op.sequence && end.code != Code::closed) {
      failure_.report("an op completed with another's number");
    }
    for (std::size_t i = 0; i < op.in.size(); ++i) {
      if (op.in[i] != input(op, number, i)) failure_.report("an input was changed");
    }
    if (op.exchange) {
      exchanged(op, end);
    } else {
      ledger_.completed(number, op.channel, end, op.out);
      --peer.outstanding[op.channel];
    }
    // Whoever reads or writes them from now on is found out.
    std::fill(op.in.begin(), op.in.end(), kPoison);
    std::fill(op.out.begin(), op.out.end(), kPoison);
  }

  // --- the users
  void begin_user(std::size_t number) {
    peers_[number]->user = true;
    for (Channel channel = 0; channel < channels_; ++channel) user_step(number, channel);
  }
  void user_step(std::size_t number, Channel channel) {
    const std::uint64_t delay =
        random_.percent(4) ? random_.between(500, 5'000) : random_.between(1, 500);
    on_peer(number, delay, [this, number, channel] {
      Peer& peer = *peers_[number];
      if (peer.next[channel] >= ops_) return;
      if (peer.outstanding[channel] < 2) submit(number, channel);
      user_step(number, channel);
    });
  }
  void submit(std::size_t number, Channel channel) {
    Peer& peer = *peers_[number];
    const Sequence sequence = peer.next[channel]++;
    const Recipe recipe = recipe_of(seed_, channel, sequence, total_);
    const bool culprit = recipe.culprit == number;
    OpRequest request;
    request.id = ++last_id_;
    request.channel = channel;
    request.kind = recipe.kind;
    request.plan = recipe.kind == OpKind::all_reduce ? recipe.plan : Plan::none;
    request.chunk_bytes = recipe.chunk_bytes;
    request.root = peers_[recipe.root]->id;
    std::size_t count = recipe.count;
    if (culprit && recipe.trouble == Trouble::mismatch) {
      if (recipe.kind == OpKind::barrier) request.kind = OpKind::all_reduce;
      count += 1 + recipe.patience % 40;
    }
    if (culprit && recipe.trouble == Trouble::deadline) {
      request.deadline = events_.now + static_cast<Nanos>(recipe.patience);
    }
    ++peer.outstanding[channel];
    UserOp& op = peer.ops[request.id];
    op.channel = channel;
    op.sequence = sequence;
    give_buffers(op, request, number, count);
    start(number, request);
    if (culprit && recipe.trouble == Trouble::abort) {
      on_peer(number, recipe.patience,
              [this, number, op_id = request.id] { core(number).abort(op_id, events_.now); });
    }
  }
  void give_buffers(UserOp& op, OpRequest& request, std::size_t number, std::size_t count) {
    op.in.resize(count);
    op.out.assign(count, -1.0F);
    for (std::size_t i = 0; i < count; ++i) op.in[i] = input(op, number, i);
    request.count = count;
    request.in = std::as_bytes(std::span(op.in));
    request.out = std::as_writable_bytes(std::span(op.out));
  }
  static float input(const UserOp& op, std::size_t number, std::size_t i) {
    return share_of(op.channel, op.sequence, number, i) + (op.exchange ? 0.5F : 0.0F);
  }
  void start(std::size_t number, const OpRequest& request) {
    const Status status = core(number).submit(request, events_.now);
    if (!status.ok()) failure_.report("an op was refused: " + status.error().message);
    if (request.deadline == kNever) return;
    on_peer(number, static_cast<std::uint64_t>(request.deadline - events_.now),
            [this, number] { core(number).tick(events_.now); });
  }
  void pair_up() {
    const std::size_t one = random_.below(total_);
    const std::size_t two = random_.below(total_);
    if (one == two) return;
    const Sequence tag = ++last_tag_;
    const std::size_t count = random_.below(60);
    for (const auto& [number, partner] : {std::pair{one, two}, std::pair{two, one}}) {
      if (random_.percent(10)) continue;
      on_peer(number, random_.between(1, 400), [this, number = number, partner = partner, tag, count] {
        OpRequest request;
        request.id = ++last_id_;
        request.kind = OpKind::exchange;
        request.channel = static_cast<Channel>(tag % channels_);
        request.tag = tag;
        request.partner = peers_[partner]->id;
        request.chunk_bytes = 24;
        request.deadline = events_.now + 3'000;
        UserOp& op = peers_[number]->ops[request.id];
        op.channel = request.channel;
        op.sequence = tag;
        op.exchange = true;
        op.partner = partner;
        give_buffers(op, request, number, count);
        start(number, request);
      });
    }
  }
  void exchanged(const UserOp& op, const Complete& end) {
    if (end.code != Code::ok) {
      const bool usual = end.code == Code::deadline || end.code == Code::peer_lost ||
                         end.code == Code::closed || end.code == Code::not_member;
      if (!usual) failure_.report(std::string("an exchange ended ") + code_name(end.code));
      return;
    }
    for (std::size_t i = 0; i < op.out.size(); ++i) {
      if (op.out[i] != input(op, op.partner, i)) failure_.report("an exchange brought other numbers");
    }
  }

  // --- faults
  void plan_faults() {
    if (random_.percent(10)) return;
    for (std::uint64_t count = random_.below(7); count > 0; --count) {
      events_.after(random_.below(kFaultTime), [this] { fault(); });
    }
    for (std::size_t number = initial_; number < total_; ++number) {
      events_.after(random_.below(kFaultTime), [this, number] {
        if (alive(number)) coordinator_.wants_to_join(number);
      });
    }
    for (std::uint64_t count = random_.below(6); count > 0; --count) {
      events_.after(random_.below(kFaultTime), [this] { pair_up(); });
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
      break_links(number);
    });
  }

  // --- promises
  void check_counters() {
    for (std::size_t one = 0; one < total_; ++one) {
      if (!alive(one) || core(one).view().size() == 0) continue;
      for (const auto& [channel, counters] : core(one).progress()) {
        if (counters.started - counters.committed > 1 || counters.done < counters.committed ||
            counters.done > counters.started) {
          failure_.report("counters out of order at peer " + std::to_string(one));
        }
        for (std::size_t two = 0; two < total_; ++two) {
          if (two == one || !alive(two)) continue;
          if (core(two).view().epoch != core(one).view().epoch) continue;
          if (!core(two).view().rank_of(peers_[one]->id)) continue;
          compare(one, two, channel, counters.committed);
        }
      }
    }
  }
  // What one has committed, the other has done; failures may be one behind.
  void compare(std::size_t one, std::size_t two, Channel channel, Sequence committed) {
    const Progress progress = core(two).progress();
    const auto found = progress.find(channel);
    const Sequence done = found == progress.end() ? 0 : found->second.done;
    if (committed <= done) return;
    if (committed == done + 1 && ledger_.failed_at(one, channel, done)) return;
    failure_.report("peer " + std::to_string(one) + " has committed " +
                    std::to_string(committed) + " ops, peer " + std::to_string(two) +
                    " has done " + std::to_string(done));
  }
  void check_end() {
    if (!coordinator_.quiet()) failure_.report("a change of the view never ended");
    for (std::size_t number : coordinator_.members()) {
      Peer& peer = *peers_[number];
      if (!alive(number)) {
        failure_.report("peer " + std::to_string(number) + " is a member, and gone");
        continue;
      }
      for (Channel channel = 0; channel < channels_; ++channel) {
        if (peer.next[channel] < ops_ || peer.outstanding[channel] > 0) {
          failure_.report("peer " + std::to_string(number) + " hangs on channel " +
                          std::to_string(channel));
        }
      }
    }
    for (std::size_t number = 0; number < total_; ++number) {
      for (const auto& [op_id, op] : peers_[number]->ops) {
        if (!op.over && op.exchange && alive(number)) failure_.report("an exchange never ended");
        if (!op.over) continue;
        for (std::size_t i = 0; i < op.in.size(); ++i) {
          if (op.in[i] != kPoison || op.out[i] != kPoison) {
            failure_.report("a buffer was written to after its op had completed");
          }
        }
      }
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

  static constexpr float kPoison = -12345.0F;

  std::uint64_t seed_;
  Random random_;
  std::size_t initial_;
  std::size_t total_;  // peers that ever live
  Channel channels_;
  Sequence ops_;  // per channel
  bool tracing_;
  Events events_;
  Failure failure_;
  CoreOptions options_;
  std::vector<std::unique_ptr<Peer>> peers_;
  Network network_;
  Ledger ledger_;
  Coordinator coordinator_;
  std::uint64_t order_delay_ = 1;   // of the coordinator's streams
  std::uint64_t notice_delay_ = 1;  // until a loss is known
  std::uint64_t spite_ = 0;         // percent of the delicate moments at which somebody crashes
  std::set<std::size_t> doomed_;
  OpId last_id_ = 0;
  Sequence last_tag_ = 0;
  Coverage coverage_;
};

}  // namespace reef::sim
