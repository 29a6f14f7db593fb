// Links as they might have been measured.
#pragma once

#include <map>
#include <memory>

#include "atoll/topology/topology.h"

namespace reef::sim {

// Two sites, the last member slow.
inline std::shared_ptr<const Topology> two_sites(Rank members) {
  static std::map<Rank, std::shared_ptr<const Topology>> made;
  std::shared_ptr<const Topology>& known = made[members];
  if (known) return known;
  Topology topology;
  topology.members = members;
  for (Rank from = 0; from < members; ++from) {
    for (Rank to = 0; to < members; ++to) {
      const bool near = from % 2 == to % 2;
      const double rate = (near ? 1e9 : 1e7) / (1 + (from * 3 + to) % 4);
      topology.links.push_back(from == to ? LinkFigures{}
                                          : LinkFigures{rate, near ? 1e-4 : 5e-2});
    }
    topology.egress_bytes_per_s.push_back(from + 1 == members ? 3e6 : 1e9);
    topology.ingress_bytes_per_s.push_back(1e9);
  }
  derive(topology);
  known = std::make_shared<const Topology>(std::move(topology));
  return known;
}

}  // namespace reef::sim
