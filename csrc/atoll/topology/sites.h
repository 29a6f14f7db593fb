// Which members share a site: fast links among themselves, slower ones to the rest. Pure; any
// thread.
//
// The distance of two members is the time of a round trip with 1 MiB in it, in the slower of the
// two directions. The members' shortest spanning tree is cut at the largest jump in the sorted
// lengths of its edges, if that jump is at least threefold: what hangs together below it is a site.
// Without such a jump all members are one site.
#pragma once

#include <cstdint>
#include <vector>

#include "atoll/topology/topology.h"

namespace reef {

// By member, the number of its site; sites are numbered by their lowest ranks.
[[nodiscard]] std::vector<std::uint32_t> find_sites(const Topology& topology);

}  // namespace reef
