#include "atoll/topology/connections.h"

#include <algorithm>

#include "atoll/base/limits.h"
#include "atoll/topology/topology.h"

namespace reef {

namespace {

constexpr double kNearly = 0.9;
constexpr double kAsLong = 0.5;
constexpr double kRoundTripOfOne = 0.005;

std::uint32_t rounded_up(double wanted) {
  if (wanted >= limits::kMaxConnectionsPerLink) return limits::kMaxConnectionsPerLink;
  const auto whole = static_cast<std::uint32_t>(wanted);
  return std::max(1u, whole < wanted ? whole + 1 : whole);
}

// The fastest that a member sends (receives) over links of at least this round trip.
double fastest_out(const Topology& topology, Rank from, double rtt_s) {
  double best = 0;
  for (Rank to = 0; to < topology.members; ++to) {
    const LinkFigures& link = topology.link(from, to);
    if (to != from && link.rtt_s >= rtt_s) best = std::max(best, link.bytes_per_s);
  }
  return best;
}

double fastest_in(const Topology& topology, Rank to, double rtt_s) {
  double best = 0;
  for (Rank from = 0; from < topology.members; ++from) {
    const LinkFigures& link = topology.link(from, to);
    if (to != from && link.rtt_s >= rtt_s) best = std::max(best, link.bytes_per_s);
  }
  return best;
}

}  // namespace

std::uint32_t connections_from_rates(std::span<const RateOfConnections> measured) {
  double best = 0;
  for (const RateOfConnections& one : measured) best = std::max(best, one.bytes_per_s);
  std::uint32_t fewest = 0;
  for (const RateOfConnections& one : measured) {
    if (one.connections == 0 || !(one.bytes_per_s > 0) || one.bytes_per_s < kNearly * best)
      continue;
    if (fewest == 0 || one.connections < fewest) fewest = one.connections;
  }
  return std::clamp(fewest, 1u, limits::kMaxConnectionsPerLink);
}

std::uint32_t connections_from_delay(double path_bytes_per_s, double rtt_s, double window_bytes) {
  if (!(path_bytes_per_s > 0) || !(rtt_s > 0) || !(window_bytes > 0)) return 1;
  return rounded_up(path_bytes_per_s * rtt_s / window_bytes);
}

std::uint32_t connections_from_round_trip(double rtt_s) {
  if (!(rtt_s > 0)) return limits::kUsualConnections;
  return std::max(limits::kUsualConnections, rounded_up(rtt_s / kRoundTripOfOne));
}

std::uint32_t connections_between(const Topology& topology, Rank a, Rank b, double window_bytes) {
  const double rtt_s = std::max(topology.link(a, b).rtt_s, topology.link(b, a).rtt_s);
  const double long_s = kAsLong * rtt_s;
  const double there =
      std::min(fastest_out(topology, a, long_s), fastest_in(topology, b, long_s));
  const double back = std::min(fastest_out(topology, b, long_s), fastest_in(topology, a, long_s));
  return connections_from_delay(std::max(there, back), rtt_s, window_bytes);
}

}  // namespace reef
