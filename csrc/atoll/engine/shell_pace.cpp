// The shell's side of pacing: what the measured lines leave to each link.
#include <algorithm>

#include "atoll/engine/shell.h"
#include "atoll/topology/topology.h"

namespace reef {

// In the direct plan member i sends j its part of the vector and then its own: so much each second as lets
// all end together.
void Shell::share_lines() {
  const View& view = core_.view();
  const std::optional<Rank> mine = view.rank_of(options_.self);
  const Topology* topology = view.topology.get();
  const bool known = topology != nullptr && mine && topology->members == view.size() &&
                     topology->derived.direct_s_per_byte > 0;
  bool news = false;
  for (auto& [id, peer] : peers_) {
    if (!peer.link) continue;
    const std::optional<Rank> other = known ? view.rank_of(id) : std::nullopt;
    if (!other) {
      news = peer.link->expect(0) || news;
      continue;
    }
    const std::vector<std::uint32_t>& weights = topology->derived.part_weights;
    const double part = static_cast<double>(weights[*mine] + weights[*other]) / kPartScale;
    news = peer.link->expect(part / topology->derived.direct_s_per_byte) || news;
  }
  if (news) line_.reset();
}

Nanos Shell::pace_links(Nanos now) {
  const Nanos observed = observe_paths(now);
  Nanos next = observed;
  for (auto& [id, peer] : peers_) {
    if (peer.link) next = std::min(next, peer.link->keep_pace(now));
  }
  return next;
}

// Returns when to look again: kNever while nothing is sent.
Nanos Shell::observe_paths(Nanos now) {
  if (observed_at_ != kNever && now - observed_at_ < kPaceEvery) return observed_at_ + kPaceEvery;
  observed_at_ = now;
  bool sending = false;
  paced_.clear();
  for (auto& [id, peer] : peers_) {
    if (!peer.link || peer.link->pacer().bytes_per_s() == 0) continue;
    sending = peer.link->observe_path(now) || sending;
    paced_.push_back(&peer.link->pacer());
  }
  line_.follow(paced_, now);
  paced_.clear();
  return sending ? now + kPaceEvery : kNever;
}

}  // namespace reef
