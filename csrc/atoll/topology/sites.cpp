#include "atoll/topology/sites.h"

#include <algorithm>
#include <cstddef>

namespace reef {

namespace {

constexpr double kSample = 1024.0 * 1024;  // bytes
// Links inside a site differ by less than this from one another, as a rule; to other sites by more.
constexpr double kJump = 3;
// Distances below this are equal. 4 ms are a MiB at 2 Gbit/s: a busy machine alone differs by so
// much from one measurement to the next.
constexpr double kNear = 4e-3;  // seconds

double distance(const Topology& topology, Rank a, Rank b) {
  const double out = topology.link(a, b).rtt_s + kSample / topology.link(a, b).bytes_per_s;
  const double back = topology.link(b, a).rtt_s + kSample / topology.link(b, a).bytes_per_s;
  return std::max({out, back, kNear});
}

struct TreeEdge {
  double length = 0;
  Rank parent = 0;
  Rank child = 0;
};

// Prim's algorithm, from rank 0; of equal edges the one to the lowest rank. A child's parent comes
// before it.
std::vector<TreeEdge> shortest_tree(const Topology& topology) {
  std::vector<TreeEdge> nearest(topology.members);
  std::vector<bool> in(topology.members, false);
  in[0] = true;
  for (Rank member = 1; member < topology.members; ++member) {
    nearest[member] = TreeEdge{distance(topology, 0, member), 0, member};
  }
  std::vector<TreeEdge> tree;
  while (tree.size() + 1 < topology.members) {
    Rank next = 0;
    for (Rank member = 1; member < topology.members; ++member) {
      if (in[member]) continue;
      if (next == 0 || nearest[member].length < nearest[next].length) next = member;
    }
    in[next] = true;
    tree.push_back(nearest[next]);
    for (Rank member = 1; member < topology.members; ++member) {
      const double length = in[member] ? 0 : distance(topology, next, member);
      if (!in[member] && length < nearest[member].length) {
        nearest[member] = TreeEdge{length, next, member};
      }
    }
  }
  return tree;
}

}  // namespace

std::vector<std::uint32_t> find_sites(const Topology& topology) {
  std::vector<std::uint32_t> site(topology.members, 0);
  if (topology.members < 3) return site;
  const std::vector<TreeEdge> tree = shortest_tree(topology);
  std::vector<double> lengths;
  for (const TreeEdge& edge : tree) lengths.push_back(edge.length);
  std::sort(lengths.begin(), lengths.end());
  double jump = kJump;
  double longest_inside = lengths.back();
  for (std::size_t i = 0; i + 1 < lengths.size(); ++i) {
    if (lengths[i + 1] >= lengths[i] * jump) {
      jump = lengths[i + 1] / lengths[i];
      longest_inside = lengths[i];
    }
  }
  // The lowest rank of each member's site. The tree's root is rank 0, but a subtree's is any.
  std::vector<Rank> top(topology.members);
  for (const TreeEdge& edge : tree) {
    top[edge.child] = edge.length > longest_inside ? edge.child : top[edge.parent];
  }
  std::vector<std::uint32_t> number(topology.members, topology.members);
  std::uint32_t sites = 0;
  for (Rank member = 0; member < topology.members; ++member) {
    std::uint32_t& known = number[top[member]];
    if (known == topology.members) known = sites++;
    site[member] = known;
  }
  return site;
}

}  // namespace reef
