#include "atoll/topology/part_weights.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>

namespace reef {

namespace {

// Integers that add up to kPartScale, each less than one away from its fraction: rounded down, and
// what is missing goes to the largest remainders, lower ranks first.
std::vector<std::uint32_t> to_weights(std::span<const double> fractions) {
  std::vector<std::uint32_t> weights;
  std::vector<double> remainders;
  std::uint32_t sum = 0;
  for (const double fraction : fractions) {
    const double exact = fraction * kPartScale;
    const double room = kPartScale - sum;  // rounding may make the fractions' sum a little over one
    weights.push_back(static_cast<std::uint32_t>(std::min(exact, room)));
    remainders.push_back(exact - weights.back());
    sum += weights.back();
  }
  std::vector<std::size_t> order(fractions.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  for (std::size_t i = 0; sum < kPartScale; ++i, ++sum) {
    ++weights[order[i % order.size()]];
  }
  return weights;
}

}  // namespace

std::vector<std::uint32_t> balanced_weights(std::span<const double> rates) {
  const std::size_t members = rates.size();
  check(members >= 1, "balanced_weights: no rates");
  if (members <= 2)
    return to_weights(std::vector<double>(members, 1.0 / static_cast<double>(members)));
  std::vector<double> sorted(rates.begin(), rates.end());
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const double spare = static_cast<double>(members - 2);
  double time = 0;
  double sum = 0;
  for (std::size_t k = 1; k <= members; ++k) {
    sum += sorted[k - 1];
    const double with = (spare + static_cast<double>(k)) / sum;
    if (with * sorted[k - 1] <= 1) break;
    time = with;
  }
  std::vector<double> fractions;
  for (const double rate : rates) fractions.push_back(std::max(0.0, (time * rate - 1) / spare));
  return to_weights(fractions);
}

std::vector<std::uint32_t> part_weights(const Topology& topology) {
  std::vector<double> lines;
  for (Rank member = 0; member < topology.members; ++member) {
    lines.push_back(
        std::min(topology.egress_bytes_per_s[member], topology.ingress_bytes_per_s[member]));
  }
  return balanced_weights(lines);
}

std::vector<std::uint32_t> site_weights(const Topology& topology) {
  std::vector<double> lines;
  for (const Border& border : site_borders(topology)) {
    // One site alone has no border: any rate will do.
    lines.push_back(std::min(
        {border.out_bytes_per_s, border.in_bytes_per_s, std::numeric_limits<double>::max()}));
  }
  return balanced_weights(lines);
}

std::vector<Border> site_borders(const Topology& topology) {
  const Derived& derived = topology.derived;
  std::vector<Border> borders(derived.sites);
  for (Rank from = 0; from < topology.members; ++from) {
    ++borders[derived.site[from]].members;
    for (Rank to = 0; to < topology.members; ++to) {
      if (derived.site[from] == derived.site[to]) continue;
      const double rate = topology.link(from, to).bytes_per_s;
      double& out = borders[derived.site[from]].out_bytes_per_s;
      double& in = borders[derived.site[to]].in_bytes_per_s;
      out = std::max(out, rate);
      in = std::max(in, rate);
    }
  }
  for (Border& border : borders) {
    if (border.out_bytes_per_s == 0) {
      border.out_bytes_per_s = std::numeric_limits<double>::infinity();
      border.in_bytes_per_s = std::numeric_limits<double>::infinity();
    }
  }
  return borders;
}

}  // namespace reef
