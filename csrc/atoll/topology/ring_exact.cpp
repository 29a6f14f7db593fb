// The best ring by dynamic programming over sets of members (Held and Karp, 1962), once for every
// bar that could matter. 12 members: 2^11 * 11 states of 11 steps, some 0.3 ms a bar.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "atoll/topology/ring_problem.h"

namespace reef {

namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

// The cheapest ring over links of at least a rate. Rank 0 is where all paths begin; the others are
// bits, member r being bit r - 1.
class HeldKarp {
 public:
  explicit HeldKarp(const RingProblem& problem)
      : problem_(problem),
        others_(problem.members() - 1),
        cost_(std::size_t{1} << others_, std::vector<double>(others_)),
        from_(std::size_t{1} << others_, std::vector<std::uint8_t>(others_)) {}

  // Empty: there is none.
  std::vector<Rank> solve(double bar) {
    const std::size_t all = (std::size_t{1} << others_) - 1;
    for (std::size_t set = 1; set <= all; ++set) {
      for (Rank last = 0; last < others_; ++last) {
        if ((set >> last & 1) != 0) step(set, last, bar);
      }
    }
    double best = kNone;
    Rank end = 0;
    for (Rank last = 0; last < others_; ++last) {
      const double total = cost_[all][last] + edge(last + 1, 0, bar);
      if (total < best) {
        best = total;
        end = last;
      }
    }
    if (best == kNone) return {};
    std::vector<Rank> order;
    for (std::size_t set = all; set != 0;) {
      order.push_back(end + 1);
      const Rank before = from_[set][end];
      set &= ~(std::size_t{1} << end);
      end = before;
    }
    order.push_back(0);
    std::reverse(order.begin(), order.end());
    return order;
  }

 private:
  [[nodiscard]] double edge(Rank from, Rank to, double bar) const {
    return problem_.rate(from, to) < bar ? kNone : problem_.cost(from, to);
  }

  // The cheapest path from rank 0 over all of `set` that ends in `last`.
  void step(std::size_t set, Rank last, double bar) {
    const std::size_t rest = set & ~(std::size_t{1} << last);
    double best = kNone;
    Rank before = 0;
    if (rest == 0) {
      best = edge(0, last + 1, bar);
    }
    for (Rank other = 0; other < others_; ++other) {
      if ((rest >> other & 1) == 0) continue;
      const double total = cost_[rest][other] + edge(other + 1, last + 1, bar);
      if (total < best) {
        best = total;
        before = other;
      }
    }
    cost_[set][last] = best;
    from_[set][last] = static_cast<std::uint8_t>(before);
  }

  const RingProblem& problem_;
  Rank others_;
  std::vector<std::vector<double>> cost_;
  std::vector<std::vector<std::uint8_t>> from_;
};

}  // namespace

std::vector<Rank> ring_order_exact(const Topology& topology, const RingLoad& load) {
  check(topology.members >= 2 && topology.members <= 16, "ring_order_exact: too many members");
  const RingProblem problem(topology, load);
  HeldKarp solver(problem);
  RingAnswer best;
  // From the lowest bar up. The cheapest ring over one bar is the cheapest over all bars up to its
  // own slowest link, so the next bar is the rate above that.
  double bar = problem.rates().front();
  for (;;) {
    const std::vector<Rank> order = solver.solve(bar);
    if (order.empty()) break;
    RingAnswer found;
    problem.consider(order, found);
    // Hops and crossings only grow from here.
    if (!best.order.empty() &&
        (found.crossings > best.crossings || problem.at_least_hops(found.hops) > best.seconds)) {
      break;
    }
    problem.consider(order, best);
    const std::vector<double>& rates = problem.rates();
    const auto above = std::upper_bound(rates.begin(), rates.end(), found.slowest_bytes_per_s);
    if (above == rates.end() || *above > problem.highest_bar()) break;
    bar = *above;
  }
  check(!best.order.empty(), "ring_order_exact: without a bar there is always a ring");
  return best.order;
}

}  // namespace reef
