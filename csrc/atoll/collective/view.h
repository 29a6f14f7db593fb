// A view: who takes part, in which order. A value. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "atoll/base/ids.h"

namespace reef {

struct Topology;  // atoll/topology/topology.h

struct View {
  Epoch epoch = 0;              // 0: no view yet
  std::vector<PeerId> members;  // by rank, oldest first
  // What was measured of the links between the members, the same on all of them; null: nothing.
  std::shared_ptr<const Topology> topology = nullptr;
  [[nodiscard]] std::optional<Rank> rank_of(const PeerId& peer) const;
  [[nodiscard]] Rank size() const { return static_cast<Rank>(members.size()); }
};

// Per channel, the number of the first op of a view; channels not named start at 0.
using Starts = std::map<Channel, Sequence>;

// One channel's progress; all three count ops since the beginning of the run, across views. A
// failed op counts as done only once it is committed as failed: a member that holds the result of
// an op cannot know of another's failure, so the two must not look alike when a new view's start is
// chosen.
struct Counters {
  Sequence started = 0;
  Sequence done = 0;
  Sequence committed = 0;
  bool operator==(const Counters&) const = default;
};
using Progress = std::map<Channel, Counters>;

enum class Change : std::uint8_t { drain = 1, abort = 2 };

}  // namespace reef
