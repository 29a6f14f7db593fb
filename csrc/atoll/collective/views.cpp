// From one view to the next: fences, installs, and what becomes of the ops that they meet.

#include <algorithm>

#include "atoll/collective/state.h"

namespace reef {

Progress Core::State::progress() const {
  Progress progress;
  for (const auto& [id, channel] : channels) {
    Counters& counters = progress[id];
    counters.committed = channel.committed;
    counters.started = channel.committed + (channel.running ? 1 : 0);
    counters.done = channel.committed + (channel.running && channel.run.good() ? 1 : 0);
  }
  return progress;
}

void Core::State::fence(std::uint64_t attempt, Change kind) {
  fenced = true;
  if (kind == Change::abort) {
    frozen = true;
    pending.reset();
    end_exchanges(Code::peer_lost);
  }
  site.actions.emplace_back(Fenced{attempt, site.view.epoch, progress()});
}

void Core::State::install(const View& view, const Starts& starts, Change kind) {
  if (view.epoch <= site.view.epoch) return;
  for (const auto& [id, start] : starts) channel(id);
  if (kind == Change::abort || !member) {
    switch_to(view, starts);
    return;
  }
  pending = PendingInstall{view, starts};
  fenced = frozen;
  if (try_switch()) return;
  for (auto& [id, each] : channels) {
    advance(each);
    if (!pending) return;  // that was the last op of the view
  }
}

// Ends a drain whose ops have all committed.
bool Core::State::try_switch() {
  const bool drained = std::all_of(channels.begin(), channels.end(), [this](const auto& entry) {
    const auto start = pending->starts.find(entry.first);
    const Sequence due = start == pending->starts.end() ? 0 : start->second;
    return !entry.second.running && entry.second.committed >= due;
  });
  if (!drained) return false;
  const PendingInstall next = std::move(*pending);
  switch_to(next.view, next.starts);
  return true;
}

void Core::State::switch_to(const View& view, const Starts& starts) {
  pending.reset();
  const std::optional<Rank> rank = view.rank_of(self);
  for (auto& [id, each] : channels) {
    const auto at = starts.find(id);
    const Sequence start = at == starts.end() ? 0 : at->second;
    if (each.running) settle(each, start, rank.has_value());
    if (rank) number_from(each, start);
  }
  end_exchanges(Code::peer_lost);
  failed_exchanges.clear();
  failed_exchanges_order.clear();
  ended_receipts.clear();
  ended_receipts_order.clear();

  member = rank.has_value();
  if (view.members != site.view.members) members_since = view.epoch;
  site.enter(view, rank.value_or(0));
  if (!member) site.view.members.clear();
  ranks.clear();
  for (Rank each = 0; each < site.view.size(); ++each) ranks.emplace(site.view.members[each], each);
  fenced = frozen = false;
  tally.stale_frames += early.drop_before(view.epoch);
  site.actions.emplace_back(Installed{view.epoch, member});
  for (auto& [id, each] : channels) advance(each);
}

// What the op in flight becomes when the next view begins with `start`: committed, or run again.
// The verdict is that all members of the next view hold its result, or know that it failed; a peer
// that does not stay may know neither, and its op waits. (When one that stays knows neither, the
// coordinator is wrong: the op cannot be saved, but the process can.)
void Core::State::settle(ChannelState& channel, Sequence start, bool stays) {
  const bool known = channel.run.good() || channel.run.failed();
  if (start <= channel.committed || (!known && !stays)) {
    run_again(channel);
    return;
  }
  const Reason reason = known ? channel.run.outcome() : Reason::aborted;
  commit(channel, code_of(reason), reason);
}

// A member's next op has the number `start`.
void Core::State::number_from(ChannelState& channel, Sequence start) {
  // A failure that this member has committed, but not all of them: it is said again.
  if (channel.failed_last && start + 1 == channel.committed) {
    channel.queue.push_front(std::move(channel.failed_last));
    --channel.committed;
  }
  if (channel.committed != start) channel.failed_last.reset();
  channel.committed = start;
}

}  // namespace reef
