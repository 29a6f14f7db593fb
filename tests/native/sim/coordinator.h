// A small model of the coordinator: first view, drains for joins and leaves, aborts for losses,
// second losses in the middle of a change. Its streams to the peers keep their order; when an
// attempt is superseded, what had not reached a peer yet may be lost (the stream broke and came
// back).
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "atoll/collective/core.h"
#include "sim/events.h"

namespace reef::sim {

struct FenceOrder {
  std::uint64_t attempt = 0;
  Change kind = Change::abort;
};
struct InstallOrder {
  View view;
  Starts starts;
  Change kind = Change::abort;
};
struct ExpelOrder {};
using Order = std::variant<FenceOrder, InstallOrder, ExpelOrder>;

class Coordinator {
 public:
  using Numbers = std::vector<std::size_t>;
  // How orders leave; `supersede` is called when an attempt begins.
  struct Ports {
    std::function<void(std::size_t, Order)> send;
    std::function<void()> supersede;
    std::function<void(Epoch, const Numbers&)> announce;  // a view exists
    std::function<PeerId(std::size_t)> id;
    std::function<std::shared_ptr<const Topology>(Epoch, Rank)> measured;
  };

  explicit Coordinator(Ports ports) : ports_(std::move(ports)) {}

  void first_view(const Numbers& members) {
    propose(members, {}, Change::drain);
  }
  void wants_to_join(std::size_t peer) {
    if (!reachable(peer)) return;
    joiners_.push_back(peer);
    next_change();
  }
  void wants_to_leave(std::size_t peer) {
    leavers_.insert(peer);
    next_change();
  }
  // A crash, a broken link, a silent peer: it is out.
  void lost(std::size_t peer) {
    if (!lost_.insert(peer).second) return;
    std::erase(joiners_, peer);
    leavers_.erase(peer);
    if (contains(base_.members, peer) || (target_ && contains(target_->members, peer))) abort();
  }
  [[nodiscard]] bool quiet() const { return !target_ && !asked_; }
  [[nodiscard]] const Numbers& members() const { return base_.members; }
  // Members that neither leave nor are known to be lost.
  [[nodiscard]] Numbers staying() const {
    Numbers staying;
    for (std::size_t peer : base_.epoch == 0 && target_ ? target_->members : base_.members) {
      if (reachable(peer) && !leavers_.contains(peer)) staying.push_back(peer);
    }
    return staying;
  }

  void fenced(std::size_t peer, const Fenced& answer) {
    if (!asked_ || answer.attempt != attempt_ || !contains(asked_->peers, peer)) return;
    asked_->answers[peer] = answer;
    decide();
  }
  void installed(std::size_t peer, const Installed& answer) {
    if (!target_ || answer.epoch != target_->epoch) return;
    if (!answer.member) {
      gone_.insert(peer);
      leavers_.erase(peer);
      if (asked_) {
        std::erase(asked_->peers, peer);
        asked_->answers.erase(peer);
      }
    }
    target_->waiting.erase(peer);
    if (asked_) decide();
    if (!target_ || !target_->waiting.empty() || asked_) return;
    base_ = *target_;
    target_.reset();
    next_change();
  }

 private:
  struct Proposal {
    Epoch epoch = 0;
    Numbers members;
    Starts starts;
    std::set<std::size_t> waiting;
  };
  struct Asked {
    Change kind = Change::abort;
    Numbers peers;
    std::map<std::size_t, Fenced> answers;
  };

  static bool contains(const Numbers& peers, std::size_t peer) {
    return std::find(peers.begin(), peers.end(), peer) != peers.end();
  }
  [[nodiscard]] bool reachable(std::size_t peer) const {
    return !lost_.contains(peer) && !gone_.contains(peer);
  }

  void next_change() {
    if (!quiet() || base_.epoch == 0) return;
    Numbers leaving;
    for (std::size_t peer : base_.members) {
      if (leavers_.contains(peer)) leaving.push_back(peer);
    }
    if (joiners_.empty() && leaving.empty()) return;
    ask(base_.members, Change::drain);
  }
  void ask(const Numbers& peers, Change kind) {
    ports_.supersede();
    ++attempt_;
    asked_ = Asked{kind, peers, {}};
    for (std::size_t peer : peers) ports_.send(peer, FenceOrder{attempt_, kind});
  }
  void abort() {
    Numbers survivors;
    for (std::size_t peer : base_.members) {
      if (reachable(peer)) survivors.push_back(peer);
    }
    if (target_) {
      for (std::size_t peer : target_->members) {
        if (reachable(peer) && !contains(survivors, peer)) survivors.push_back(peer);
      }
    }
    if (survivors.empty()) {
      asked_.reset();
      return;
    }
    ask(survivors, Change::abort);
  }

  void decide() {
    if (asked_->answers.size() < asked_->peers.size()) return;
    if (asked_->peers.empty()) {
      asked_.reset();
    } else if (asked_->kind == Change::drain) {
      decide_drain();
    } else {
      decide_abort();
    }
  }
  void decide_drain() {
    Starts starts;
    for (const auto& [peer, answer] : asked_->answers) {
      for (const auto& [channel, counters] : answer.progress) {
        starts[channel] = std::max(starts[channel], counters.started);
      }
    }
    Numbers members;
    for (std::size_t peer : base_.members) {
      if (!leavers_.contains(peer)) members.push_back(peer);
    }
    if (members.empty()) {  // somebody has to stay
      members.push_back(base_.members.front());
      leavers_.erase(members.front());
    }
    for (std::size_t peer : joiners_) members.push_back(peer);
    joiners_.clear();
    propose(members, starts, Change::drain);
  }

  // A target counts as installed when a member of the view before it has switched. (A joiner's word
  // is not enough: it switches before the others have finished the ops that the drain waits for.)
  void decide_abort() {
    bool switched = false;
    for (const auto& [peer, answer] : asked_->answers) {
      switched |= target_ && answer.epoch == target_->epoch && contains(base_.members, peer);
    }
    for (std::size_t peer : gone_) {
      switched |= target_ && contains(base_.members, peer);
    }
    const bool first = base_.epoch == 0;
    const Proposal newest = target_ && (switched || first) ? *target_ : base_;
    std::map<Channel, std::optional<Sequence>> smallest;
    Numbers members;
    for (const auto& [peer, answer] : asked_->answers) {
      for (const auto& [channel, counters] : answer.progress) smallest.try_emplace(channel);
    }
    for (const auto& [channel, start] : newest.starts) smallest.try_emplace(channel);
    for (std::size_t peer : newest.members) {
      if (!reachable(peer)) continue;
      members.push_back(peer);
      const Fenced& answer = asked_->answers.at(peer);
      for (auto& [channel, start] : smallest) {
        Sequence done = 0;
        if (answer.epoch < newest.epoch) {
          const auto at = newest.starts.find(channel);
          done = at == newest.starts.end() ? 0 : at->second;
        } else if (const auto at = answer.progress.find(channel); at != answer.progress.end()) {
          done = at->second.done;
        }
        start = start ? std::min(*start, done) : done;
      }
    }
    Starts starts;
    for (const auto& [channel, start] : smallest) starts[channel] = start.value_or(0);
    base_ = newest;
    const Numbers asked = asked_->peers;
    propose(members, starts, Change::abort);
    for (std::size_t peer : asked) {
      if (contains(members, peer)) continue;
      gone_.insert(peer);
      ports_.send(peer, ExpelOrder{});
    }
  }

  void propose(const Numbers& members, const Starts& starts, Change kind) {
    Proposal proposal{++epoch_, members, starts, {members.begin(), members.end()}};
    View view;
    view.epoch = proposal.epoch;
    for (std::size_t peer : members) view.members.push_back(ports_.id(peer));
    view.topology = ports_.measured(view.epoch, view.size());
    ports_.announce(view.epoch, members);
    Numbers told = members;
    const Numbers& before = asked_ ? asked_->peers : members;
    for (std::size_t peer : before) {
      if (contains(told, peer)) continue;
      told.push_back(peer);
      if (kind == Change::drain) proposal.waiting.insert(peer);
    }
    asked_.reset();
    target_ = proposal;
    for (std::size_t peer : told) ports_.send(peer, InstallOrder{view, starts, kind});
  }

  Ports ports_;
  Proposal base_;  // the newest view that is known to be installed
  std::optional<Proposal> target_;
  std::optional<Asked> asked_;
  std::deque<std::size_t> joiners_;
  std::set<std::size_t> leavers_;
  std::set<std::size_t> lost_;
  std::set<std::size_t> gone_;
  Epoch epoch_ = 0;
  std::uint64_t attempt_ = 0;
};

}  // namespace reef::sim
