#include "atoll/topology/ring_order.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

#include "atoll/topology/ring_problem.h"

namespace reef {

RingFigures ring_figures(const Topology& topology, std::span<const Rank> order) {
  RingFigures figures;
  figures.slowest_bytes_per_s = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < order.size(); ++i) {
    const Rank from = order[i];
    const Rank to = order[(i + 1) % order.size()];
    const double rate = topology.link(from, to).bytes_per_s;
    if (rate < figures.slowest_bytes_per_s) figures.slowest_bytes_per_s = rate;
    figures.latency_s += topology.latency(from, to);
    figures.seconds_per_byte += 1 / rate;
  }
  return figures;
}

double ring_seconds(const RingFigures& figures, Rank members, const RingLoad& load) {
  const double n = members;
  const double segment = load.bytes / n;
  const double chunk = load.chunk_bytes < segment ? load.chunk_bytes : segment;
  const double hop = (figures.latency_s + chunk * figures.seconds_per_byte) / n;
  const double busy = (2 * n - 2) * segment / figures.slowest_bytes_per_s + hop;
  const double path = (2 * n - 2) * hop + (segment - chunk) / figures.slowest_bytes_per_s;
  return busy > path ? busy : path;
}

RingProblem::RingProblem(const Topology& topology, const RingLoad& load)
    : topology_(topology), load_(load), members_(topology.members) {
  const double segment = load.bytes / members_;
  const double chunk = load.chunk_bytes < segment ? load.chunk_bytes : segment;
  hops_.resize(static_cast<std::size_t>(members_) * members_);
  sites_ = topology.derived.site.empty() ? 1 : topology.derived.sites;
  for (Rank from = 0; from < members_; ++from) {
    for (Rank to = 0; to < members_; ++to) {
      if (from == to) continue;
      const double rate = topology.link(from, to).bytes_per_s;
      hops_[at(from, to)] = topology.latency(from, to) + chunk / rate;
      longest_hop_ = std::max(longest_hop_, hops_[at(from, to)]);
      rates_.push_back(rate);
    }
  }
  std::sort(rates_.begin(), rates_.end());
  rates_.erase(std::unique(rates_.begin(), rates_.end()), rates_.end());
  // Every member needs a link in and one out: no ring is faster than the worst member's best.
  highest_bar_ = rates_.back();
  for (Rank member = 0; member < members_; ++member) {
    double out = 0;
    double in = 0;
    for (Rank other = 0; other < members_; ++other) {
      if (other == member) continue;
      out = std::max(out, rate(member, other));
      in = std::max(in, rate(other, member));
    }
    highest_bar_ = std::min({highest_bar_, out, in});
  }
}

double RingProblem::at_least(double bar) const {
  return (2.0 * members_ - 2) * load_.bytes / members_ / bar;
}

bool RingProblem::consider(std::span<const Rank> order, RingAnswer& best) const {
  RingAnswer answer;
  const RingFigures figures = ring_figures(topology_, order);
  answer.slowest_bytes_per_s = figures.slowest_bytes_per_s;
  answer.seconds = ring_seconds(figures, members_, load_);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const Rank next = order[(i + 1) % order.size()];
    answer.hops += hop(order[i], next);
    answer.crossings += crosses(order[i], next) ? 1 : 0;
  }
  const bool better = std::tie(answer.crossings, answer.seconds, answer.hops) <
                      std::tie(best.crossings, best.seconds, best.hops);
  if (!best.order.empty() && !better) return false;
  answer.order.assign(order.begin(), order.end());
  std::rotate(answer.order.begin(), std::find(answer.order.begin(), answer.order.end(), Rank{0}),
              answer.order.end());
  best = std::move(answer);
  return true;
}

std::vector<Rank> ring_order(const Topology& topology, const RingLoad& load) {
  if (topology.members <= 2) {
    std::vector<Rank> order(topology.members);
    std::iota(order.begin(), order.end(), Rank{0});
    return order;
  }
  return topology.members <= kExactRing ? ring_order_exact(topology, load)
                                        : ring_order_search(topology, load);
}

}  // namespace reef
