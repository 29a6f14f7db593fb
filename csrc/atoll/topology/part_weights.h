// How large a part of the vector each owner should have. Pure functions; any thread.
//
// In the direct plan the owner of a fraction p of S bytes receives N-1 contributions of p*S and
// sends N-1 results of p*S; to the other owners it sends contributions of (1-p)*S in all, and
// receives as much in results. So each direction of its line carries
//     (1-p)*S + (N-1)*p*S = S * (1 + (N-2)*p),
// and with b, the slower of what the member can send and receive, takes S * (1 + (N-2)*p) / b. The
// fractions add up to 1, so the largest of these times is least when all members that own something
// take the same time t, and those for which S/b is longer than t already own nothing:
//     p_i = max(0, (t*b_i/S - 1) / (N-2)),   t/S = (N-2 + k) / (sum of the k largest b),
// with the largest k for which the k-th member's fraction is positive. With equal lines p is 1/N.
// For two members the fractions do not change the bytes: 1/2 each.
//
// In the grouped plan the same holds between sites, whose line is the way out that their members
// share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "atoll/topology/topology.h"

namespace reef {

// By owner; in 65,536ths of the vector.
[[nodiscard]] std::vector<std::uint32_t> part_weights(const Topology& topology);
// By site; in 65,536ths. Needs derived.site.
[[nodiscard]] std::vector<std::uint32_t> site_weights(const Topology& topology);
// The fractions for lines of these rates (positive), in bytes per second.
[[nodiscard]] std::vector<std::uint32_t> balanced_weights(std::span<const double> rates);

// A site's way out and in: the fastest of its links that cross its border, as measured alone.
// Members of a site are taken to share it. No such link: infinity.
struct Border {
  double out_bytes_per_s = 0;
  double in_bytes_per_s = 0;
  Rank members = 0;  // of the site
};
[[nodiscard]] std::vector<Border> site_borders(const Topology& topology);

}  // namespace reef
