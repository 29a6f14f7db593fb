// What the simulated users run, and what must come of it. Op s of a channel is the same on all
// members and follows from the seed. Inputs are tagged, so that a result shows who is in it and how
// often: even elements hold 2^peer, odd ones (peer + 1) times a number that names op and place.
// Sums are exact.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "atoll/collective/core.h"
#include "sim/events.h"

namespace reef::sim {

enum class Trouble : std::uint8_t { none, mismatch, deadline, abort };

struct Recipe {
  OpKind kind = OpKind::barrier;
  Plan plan = Plan::none;
  std::size_t count = 0;
  std::uint32_t chunk_bytes = 4;
  std::size_t root = 0;
  Trouble trouble = Trouble::none;
  std::size_t culprit = 0;
  std::uint64_t patience = 0;  // of the culprit
  std::size_t absent = SIZE_MAX;  // who contributes nothing to an all-reduce
};

inline Recipe recipe_of(std::uint64_t seed, Channel channel, Sequence sequence,
                        std::size_t peers) {
  Random random(seed * 1'000'003 + channel * 1'009 + sequence);
  Recipe recipe;
  recipe.kind = random.percent(65)   ? OpKind::all_reduce
                : random.percent(70) ? OpKind::broadcast
                                     : OpKind::barrier;
  recipe.plan = static_cast<Plan>(random.below(kLastPlan + 1));
  recipe.count = recipe.kind == OpKind::barrier ? 0 : random.below(random.percent(20) ? 8 : 120);
  recipe.chunk_bytes = static_cast<std::uint32_t>(4 * random.between(1, 24));
  recipe.root = random.percent(50) ? 0 : random.below(peers);
  if (random.percent(20)) recipe.trouble = static_cast<Trouble>(random.between(1, 3));
  recipe.culprit = random.below(peers);
  recipe.patience = random.between(1, 2'000);
  if (random.percent(25)) recipe.absent = random.below(peers);
  return recipe;
}

inline float tag_of(Channel channel, Sequence sequence, std::size_t i) {
  return static_cast<float>((channel * 31 + sequence * 7 + i * 13) % 61 + 1);
}
inline float share_of(Channel channel, Sequence sequence, std::size_t peer, std::size_t i) {
  if (i % 2 == 0) return static_cast<float>(1u << peer);
  return tag_of(channel, sequence, i) * static_cast<float>(peer + 1);
}

// What became of every op everywhere.
class Ledger {
 public:
  Ledger(std::uint64_t seed, std::size_t peers, Failure& failure)
      : seed_(seed), peers_(peers), failure_(failure) {}

  // A peer that is out from now on: what it still believes binds nobody.
  void out(std::size_t peer) { out_.insert(peer); }
  // The peers of each view, by number.
  void view(Epoch epoch, const std::vector<std::size_t>& members) { views_[epoch] = members; }

  void completed(std::size_t peer, Channel channel, const Complete& end,
                 const std::vector<float>& out) {
    if (end.code == Code::closed) return;
    const Recipe recipe = recipe_of(seed_, channel, end.sequence, peers_);
    const std::string where = "op " + std::to_string(end.sequence) + " of channel " +
                              std::to_string(channel) + " at peer " + std::to_string(peer) +
                              " in epoch " + std::to_string(end.epoch) + ": ";
    Fate& fate = fates_[{channel, end.sequence}];
    if (end.code == Code::ok) {
      succeeded(peer, channel, end, out, recipe, fate, where);
    } else {
      may_fail(end, recipe, where);
      fate.failed.push_back(peer);
      if (fate.epoch && is_member(*fate.epoch, peer) && !out_.contains(peer)) {
        failure_.report(where + "failed (" + code_name(end.code) + "), but committed elsewhere");
      }
    }
  }
  [[nodiscard]] bool failed_at(std::size_t peer, Channel channel, Sequence sequence) const {
    const auto fate = fates_.find({channel, sequence});
    if (fate == fates_.end()) return false;
    return std::find(fate->second.failed.begin(), fate->second.failed.end(), peer) !=
           fate->second.failed.end();
  }

 private:
  struct Fate {
    std::optional<Epoch> epoch;  // committed there
    std::vector<std::size_t> failed;
  };

  [[nodiscard]] bool is_member(Epoch epoch, std::size_t peer) const {
    const auto view = views_.find(epoch);
    if (view == views_.end()) return false;
    return std::find(view->second.begin(), view->second.end(), peer) != view->second.end();
  }
  void succeeded(std::size_t peer, Channel channel, const Complete& end,
                 const std::vector<float>& out, const Recipe& recipe, Fate& fate,
                 const std::string& where) {
    if (!is_member(end.epoch, peer)) failure_.report(where + "committed by a stranger");
    if (fate.epoch && *fate.epoch != end.epoch) {
      failure_.report(where + "committed in epoch " + std::to_string(*fate.epoch) + " elsewhere");
    }
    fate.epoch = end.epoch;
    for (std::size_t other : fate.failed) {
      if (is_member(end.epoch, other) && !out_.contains(other)) {
        failure_.report(where + "committed, but failed at peer " + std::to_string(other));
      }
    }
    if (recipe.trouble == Trouble::mismatch && views_[end.epoch].size() > 1 &&
        is_member(end.epoch, recipe.culprit)) {
      failure_.report(where + "committed, though the members disagree");
    }
    if (recipe.kind == OpKind::broadcast && !is_member(end.epoch, recipe.root)) {
      failure_.report(where + "committed without its root");
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
      const float wanted = expected(channel, end, recipe, i);
      if (out[i] != wanted) {
        failure_.report(where + "element " + std::to_string(i) + " is " + std::to_string(out[i]) +
                        ", not " + std::to_string(wanted));
        return;
      }
    }
  }
  float expected(Channel channel, const Complete& end, const Recipe& recipe, std::size_t i) {
    if (recipe.kind == OpKind::broadcast) {
      return share_of(channel, end.sequence, recipe.root, i);
    }
    float sum = 0;
    for (std::size_t member : views_[end.epoch]) {
      if (recipe.kind == OpKind::all_reduce && member == recipe.absent) continue;
      sum += share_of(channel, end.sequence, member, i);
    }
    return sum;
  }
  void may_fail(const Complete& end, const Recipe& recipe, const std::string& where) {
    const bool root_lost = end.code == Code::peer_lost && recipe.kind == OpKind::broadcast &&
                           !is_member(end.epoch, recipe.root);
    const bool mismatch = end.code == Code::mismatch && recipe.trouble == Trouble::mismatch;
    const bool deadline = end.code == Code::deadline && recipe.trouble == Trouble::deadline;
    const bool aborted = end.code == Code::aborted && recipe.trouble == Trouble::abort;
    if (!root_lost && !mismatch && !deadline && !aborted) {
      failure_.report(where + "failed without a cause: " + code_name(end.code));
    }
  }

  std::uint64_t seed_;
  std::size_t peers_;
  Failure& failure_;
  std::set<std::size_t> out_;
  std::map<Epoch, std::vector<std::size_t>> views_;
  std::map<std::pair<Channel, Sequence>, Fate> fates_;
};

}  // namespace reef::sim
