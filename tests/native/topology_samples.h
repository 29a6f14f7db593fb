// Link figures to test with: drawn from a seed, or of a shape that real networks have.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "atoll/topology/topology.h"

namespace reef {

inline Topology uniform_topology(Rank members, double bytes_per_s, double rtt_s) {
  Topology topology;
  topology.members = members;
  topology.egress_bytes_per_s.assign(members, bytes_per_s);
  topology.ingress_bytes_per_s.assign(members, bytes_per_s);
  for (Rank from = 0; from < members; ++from) {
    for (Rank to = 0; to < members; ++to) {
      topology.links.push_back(from == to ? LinkFigures{} : LinkFigures{bytes_per_s, rtt_s});
    }
  }
  return topology;
}

inline LinkFigures& link_of(Topology& topology, Rank from, Rank to) {
  return topology.links[static_cast<std::size_t>(from) * topology.members + to];
}

// A line is as fast as its fastest link.
inline void lines_from_links(Topology& topology) {
  for (Rank a = 0; a < topology.members; ++a) {
    double out = 0;
    double in = 0;
    for (Rank b = 0; b < topology.members; ++b) {
      out = std::max(out, topology.link(a, b).bytes_per_s);
      in = std::max(in, topology.link(b, a).bytes_per_s);
    }
    topology.egress_bytes_per_s[a] = out;
    topology.ingress_bytes_per_s[a] = in;
  }
}

// Rates over two decades and round trips over three, each direction by itself.
inline Topology random_topology(Rank members, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> unit(0, 1);
  Topology topology = uniform_topology(members, 1, 1);
  for (Rank from = 0; from < members; ++from) {
    for (Rank to = 0; to < members; ++to) {
      if (from == to) continue;
      link_of(topology, from, to) = {1e6 * std::pow(10.0, 2 * unit(random)),
                                     3e-4 * std::pow(10.0, 3 * unit(random))};
    }
  }
  lines_from_links(topology);
  return topology;
}

// Members on a map: round trips from distances, rates from the lines of both ends and 10 % of
// noise.
inline Topology map_topology(Rank members, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<double> x, y, up, down;
  for (Rank member = 0; member < members; ++member) {
    x.push_back(unit(random));
    y.push_back(unit(random));
    down.push_back(5e6 * std::pow(10.0, 1.5 * unit(random)));
    up.push_back(down.back() * (0.3 + 0.7 * unit(random)));
  }
  Topology topology = uniform_topology(members, 1, 1);
  for (Rank from = 0; from < members; ++from) {
    for (Rank to = 0; to < members; ++to) {
      if (from == to) continue;
      const double distance = std::hypot(x[from] - x[to], y[from] - y[to]);
      link_of(topology, from, to) = {std::min(up[from], down[to]) * (0.9 + 0.1 * unit(random)),
                                     1e-3 + 0.2 * distance};
    }
  }
  lines_from_links(topology);
  return topology;
}

// `site` by member. Inside: 10 Gbit/s and 0.2 ms; between: 200 Mbit/s and 40 ms; each with 20 % of
// noise.
inline Topology sites_topology(const std::vector<std::uint32_t>& site, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> noise(0.8, 1.2);
  Topology topology = uniform_topology(static_cast<Rank>(site.size()), 1, 1);
  for (Rank from = 0; from < topology.members; ++from) {
    for (Rank to = 0; to < topology.members; ++to) {
      if (from == to) continue;
      const bool inside = site[from] == site[to];
      link_of(topology, from, to) = {(inside ? 1.25e9 : 25e6) * noise(random),
                                     (inside ? 2e-4 : 4e-2) * noise(random)};
    }
  }
  lines_from_links(topology);
  return topology;
}

// The same members with other ranks: member i of the result is member order[i] of `topology`.
inline Topology renumbered(const Topology& topology, const std::vector<Rank>& order) {
  Topology other = uniform_topology(topology.members, 1, 1);
  for (Rank i = 0; i < topology.members; ++i) {
    other.egress_bytes_per_s[i] = topology.egress_bytes_per_s[order[i]];
    other.ingress_bytes_per_s[i] = topology.ingress_bytes_per_s[order[i]];
    for (Rank j = 0; j < topology.members; ++j) {
      link_of(other, i, j) = topology.link(order[i], order[j]);
    }
  }
  return other;
}

}  // namespace reef
