// A good ring for many members: nearest-neighbour starts, improved by exchanging neighbouring
// stretches of the ring (the 3-opt move that keeps every link's direction; moving one member, or a
// few, is its special case) and shaken by seeded kicks. When a ring is found whose time is bound
// by its slowest link, that link and all slower ones are forbidden and the search goes on from
// there, until latency bounds the time or no ring is found.

#include <algorithm>
#include <cstdint>

#include "atoll/topology/ring_problem.h"

namespace reef {

namespace {

constexpr Rank kStarts = 8;
// Measured on 9 to 12 members (docs/collectives.md): without kicks half of the rings are not the
// best, with ten a few, with twenty none of 640.
constexpr int kKicks = 20;
// Up to so many members stretches of any length are exchanged; above, one of the two is short.
constexpr Rank kAnyLength = 32;
constexpr Rank kShort = 3;

// SplitMix64 (Steele, Lea, Flood, 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t below(std::uint64_t bound) {
    state_ += 0x9e3779b97f4a7c15;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % bound;
  }

 private:
  std::uint64_t state_;
};

class Search {
 public:
  Search(const RingProblem& problem, std::uint64_t seed)
      : problem_(problem), members_(problem.members()), random_(seed) {
    // More than any ring: its links cost at most (2 * members + 1) times the longest hop each.
    forbidden_ = problem.longest_hop() * (2.0 * members_ + 2) * members_;
    least_gain_ = problem.longest_hop() * 1e-9;
  }

  void run(Rank start, RingAnswer& best) {
    bar_ = 0;
    cost_refresh();
    order_ = nearest_neighbours(start);
    for (;;) {
      improve_with_kicks();
      const double slowest = slowest_of_order();
      if (slowest < bar_) return;  // no ring over this bar was found
      problem_.consider(order_, best);
      const auto above =
          std::upper_bound(problem_.rates().begin(), problem_.rates().end(), slowest);
      if (above == problem_.rates().end() || *above > problem_.highest_bar()) return;
      // Hops grow with the bar: where they bound the time already, a higher one is no use.
      if (problem_.at_least_hops(hops()) >= problem_.at_least(slowest)) return;
      bar_ = *above;
      cost_refresh();
    }
  }

 private:
  [[nodiscard]] double cost(Rank from, Rank to) const {
    return costs_[static_cast<std::size_t>(from) * members_ + to];
  }
  void cost_refresh() {
    costs_.resize(static_cast<std::size_t>(members_) * members_);
    for (Rank from = 0; from < members_; ++from) {
      for (Rank to = 0; to < members_; ++to) {
        if (from == to) continue;
        costs_[static_cast<std::size_t>(from) * members_ + to] =
            problem_.cost(from, to) + (problem_.rate(from, to) < bar_ ? forbidden_ : 0);
      }
    }
  }
  [[nodiscard]] Rank next_of(std::size_t i) const { return order_[(i + 1) % members_]; }
  [[nodiscard]] double hops() const {
    double sum = 0;
    for (std::size_t i = 0; i < members_; ++i) sum += problem_.hop(order_[i], next_of(i));
    return sum;
  }
  [[nodiscard]] double total() const {
    double sum = 0;
    for (std::size_t i = 0; i < members_; ++i) sum += cost(order_[i], next_of(i));
    return sum;
  }
  [[nodiscard]] double slowest_of_order() const {
    double slowest = problem_.rates().back();
    for (std::size_t i = 0; i < members_; ++i) {
      slowest = std::min(slowest, problem_.rate(order_[i], next_of(i)));
    }
    return slowest;
  }

  [[nodiscard]] std::vector<Rank> nearest_neighbours(Rank start) const {
    std::vector<bool> used(members_, false);
    std::vector<Rank> order{start};
    used[start] = true;
    while (order.size() < members_) {
      Rank nearest = members_;
      for (Rank to = 0; to < members_; ++to) {
        if (used[to]) continue;
        if (nearest == members_ || cost(order.back(), to) < cost(order.back(), nearest)) {
          nearest = to;
        }
      }
      used[nearest] = true;
      order.push_back(nearest);
    }
    return order;
  }

  // Exchanges the stretches [i+1 .. j] and [j+1 .. k], 0 <= i < j < k < members.
  [[nodiscard]] double gain(std::size_t i, std::size_t j, std::size_t k) const {
    const double before = cost(order_[i], order_[i + 1]) + cost(order_[j], order_[j + 1]) +
                          cost(order_[k], next_of(k));
    const double after = cost(order_[i], order_[j + 1]) + cost(order_[k], order_[i + 1]) +
                         cost(order_[j], next_of(k));
    return before - after;
  }
  void exchange(std::size_t i, std::size_t j, std::size_t k) {
    const auto first = order_.begin() + static_cast<std::ptrdiff_t>(i) + 1;
    std::rotate(first, order_.begin() + static_cast<std::ptrdiff_t>(j) + 1,
                order_.begin() + static_cast<std::ptrdiff_t>(k) + 1);
  }

  bool improve_once() {
    bool improved = false;
    const std::size_t longest = members_ <= kAnyLength ? members_ : kShort;
    for (std::size_t i = 0; i + 2 < members_; ++i) {
      for (std::size_t j = i + 1; j + 1 < members_; ++j) {
        const std::size_t last =
            j - i <= longest ? members_ - 1 : std::min<std::size_t>(members_ - 1, j + longest);
        for (std::size_t k = j + 1; k <= last; ++k) {
          if (gain(i, j, k) > least_gain_) {
            exchange(i, j, k);
            improved = true;
          }
        }
      }
    }
    return improved;
  }
  void improve() {
    // Each exchange gains, so this ends; the bound is for rounding that nobody foresaw.
    for (int sweep = 0; sweep < 1'000 && improve_once(); ++sweep) {
    }
  }
  void improve_with_kicks() {
    improve();
    for (int kick = 0; kick < kKicks; ++kick) {
      const std::vector<Rank> kept = order_;
      const double before = total();
      for (int i = 0; i < 2; ++i) random_exchange();
      improve();
      if (total() > before - least_gain_) order_ = kept;
    }
  }
  void random_exchange() {
    std::size_t cuts[3];
    do {
      for (std::size_t& cut : cuts) cut = static_cast<std::size_t>(random_.below(members_));
      std::sort(std::begin(cuts), std::end(cuts));
    } while (cuts[0] == cuts[1] || cuts[1] == cuts[2]);
    exchange(cuts[0], cuts[1], cuts[2]);
  }

  const RingProblem& problem_;
  Rank members_;
  Random random_;
  double bar_ = 0;
  double forbidden_ = 0;
  double least_gain_ = 0;
  std::vector<double> costs_;
  std::vector<Rank> order_;
};

}  // namespace

std::vector<Rank> ring_order_search(const Topology& topology, const RingLoad& load) {
  check(topology.members >= 3, "ring_order_search: too few members");
  const RingProblem problem(topology, load);
  RingAnswer best;
  const Rank starts = topology.members > 64 ? 2 : std::min(kStarts, topology.members);
  for (Rank start = 0; start < starts; ++start) {
    Search(problem, start + 1).run(topology.members * start / starts, best);
  }
  return best.order;
}

}  // namespace reef
