// What the exact and the heuristic search of a ring's order share. Values; any thread.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "atoll/topology/ring_order.h"

namespace reef {

struct RingAnswer {
  std::vector<Rank> order;
  double slowest_bytes_per_s = 0;
  Rank crossings = 0;  // links from site to site
  double seconds = 0;
  double hops = 0;  // the sum of the ring's hops
};

class RingProblem {
 public:
  // Keeps a reference to the topology.
  RingProblem(const Topology& topology, const RingLoad& load);

  [[nodiscard]] Rank members() const { return members_; }
  // Seconds that a chunk spends on a link.
  [[nodiscard]] double hop(Rank from, Rank to) const { return hops_[at(from, to)]; }
  [[nodiscard]] double rate(Rank from, Rank to) const {
    return topology_.link(from, to).bytes_per_s;
  }
  // The same with so much more for a link from site to site that no ring with more of these is
  // cheaper.
  [[nodiscard]] double cost(Rank from, Rank to) const {
    return hop(from, to) + (crosses(from, to) ? 2 * members_ * longest_hop_ : 0);
  }
  [[nodiscard]] double longest_hop() const { return longest_hop_; }
  [[nodiscard]] bool crosses(Rank from, Rank to) const {
    return sites_ > 1 && topology_.derived.site[from] != topology_.derived.site[to];
  }
  // The links' rates, ascending, each once.
  [[nodiscard]] const std::vector<double>& rates() const { return rates_; }
  // No ring's slowest link is faster.
  [[nodiscard]] double highest_bar() const { return highest_bar_; }
  // No ring with a link of this rate takes less.
  [[nodiscard]] double at_least(double bar) const;
  // Nor one with hops of this sum.
  [[nodiscard]] double at_least_hops(double hops) const {
    return (2.0 * members_ - 2) / members_ * hops;
  }
  // Puts `order` in the place of `best` if it crosses fewer borders or takes less time (of two that
  // take the same: fewer seconds of hops; of two equal ones, the first). Returns whether it did.
  bool consider(std::span<const Rank> order, RingAnswer& best) const;

 private:
  [[nodiscard]] std::size_t at(Rank from, Rank to) const {
    return static_cast<std::size_t>(from) * members_ + to;
  }

  const Topology& topology_;
  RingLoad load_;
  Rank members_;
  std::vector<double> hops_;
  std::vector<double> rates_;
  double highest_bar_ = 0;
  double longest_hop_ = 0;
  Rank sites_ = 1;
};

}  // namespace reef
