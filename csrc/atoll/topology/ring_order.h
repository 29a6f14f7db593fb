// In which order the members should sit on the ring. Pure functions; any thread.
//
// The objective. Of a vector of S bytes every link of the ring carries (2N-2)/N * S, chunk by
// chunk. Links work at the same time, so two things bound the time, and the longer one is the time:
//   - the slowest link is busy all the time:  (2N-2) * S/N / r_min, and its last chunk must arrive;
//   - a chunk passes 2N-2 links one after the other, each for its latency and its own bytes c:
//     (2N-2) * mean(l + c/r), and the rest of its segment follows it at the slowest link's rate.
// ring_seconds() is the larger of the two. It depends on an order only through the slowest rate and
// two sums, and falls with the one and grows with the others: so the best order is found among the
// cheapest rings (smallest sum of l + c/r: the asymmetric travelling salesman) that use no link
// slower than a bar, over all bars. Up to kExactRing members that is done exactly (Held and Karp,
// 1962); above, by a deterministic search.
//
// Members of a site (derived.site) sit next to one another: they share a way out, so a ring that
// crosses a site's border twice has half of it for each link. Only among rings with the fewest
// crossings does the time decide. Without sites (derived.site empty, or all in one) it alone
// decides.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "atoll/topology/topology.h"

namespace reef {

struct RingLoad {
  double bytes = 0;        // of the vector, as it travels
  double chunk_bytes = 0;  // of one chunk, as it travels
};

// One order serves all ops of a view, so it is chosen for a vector of a usual size.
inline constexpr RingLoad kNominalRing{64.0 * 1024 * 1024, 256.0 * 1024};
inline constexpr Rank kExactRing = 12;

// The order, from rank 0. Exact up to kExactRing members.
[[nodiscard]] std::vector<Rank> ring_order(const Topology& topology, const RingLoad& load);
// At most 16 members (time and memory grow with 2^members).
[[nodiscard]] std::vector<Rank> ring_order_exact(const Topology& topology, const RingLoad& load);
[[nodiscard]] std::vector<Rank> ring_order_search(const Topology& topology, const RingLoad& load);

[[nodiscard]] RingFigures ring_figures(const Topology& topology, std::span<const Rank> order);
// Predicted seconds of an all-reduce over a ring with these figures.
[[nodiscard]] double ring_seconds(const RingFigures& figures, Rank members, const RingLoad& load);

}  // namespace reef
