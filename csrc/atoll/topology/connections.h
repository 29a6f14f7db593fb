// How many TCP connections a link should have. Pure functions; any thread.
//
// One connection carries at most one window per round trip, and after a loss much less for a while;
// several share a long path better. Each costs sockets, buffers and wake-ups, so the smallest
// number that is nearly as good as any is the right one.
#pragma once

#include <cstdint>
#include <span>

#include "atoll/base/ids.h"
#include "atoll/base/limits.h"

namespace reef {

struct Topology;  // atoll/topology/topology.h

// From so long a round trip on a path is long: what the kernel holds for one of its connections, or a
// large chunk, is a good part of what the connection carries in that time.
inline constexpr double kLongRoundTripS = 0.005;
// Of all links of an engine together, unless each has limits::kUsualConnections alone. As many as may
// wait for their handshake at the other side: those of one link wait for one another there.
inline constexpr std::size_t kConnectionsOfAll = limits::kMaxPendingHandshakes;

struct RateOfConnections {
  std::uint32_t connections = 0;
  double bytes_per_s = 0;
};

// The smallest measured number that reaches 90 % of the best measured rate; 1 without measurements.
// At most limits::kMaxConnectionsPerLink.
[[nodiscard]] std::uint32_t connections_from_rates(std::span<const RateOfConnections> measured);

// Where only one number of connections was tried: so many that their windows hold what is under way
// on the path, i.e. rate * round trip / window, rounded up. `path_bytes_per_s` is what the path is
// thought to carry (the fastest of the member's links, say), `window_bytes` what one connection may
// have under way (its send buffer). 1 .. limits::kMaxConnectionsPerLink; 1 when a figure is absent.
[[nodiscard]] std::uint32_t connections_from_delay(double path_bytes_per_s, double rtt_s,
                                                   double window_bytes);

// Where nothing but the round trip is known: one for every 5 ms of it, two at least. A connection of
// a path that loses one packet in a thousand carries some 56 KB a round trip whatever the line does
// (Mathis et al. 1997: 1.22 / sqrt(loss) segments), so sixteen carry a line of 90 Mbit/s at 80 ms.
// limits::kUsualConnections .. limits::kMaxConnectionsPerLink.
[[nodiscard]] std::uint32_t connections_from_round_trip(double rtt_s);

// Enough windows for the link between two members of a measured view. The path is thought to carry,
// each way, what both ends have reached on a link at least half as long: short links say what a machine
// can send next door, not to there.
[[nodiscard]] std::uint32_t connections_between(const Topology& topology, Rank a, Rank b,
                                                double window_bytes);

}  // namespace reef
