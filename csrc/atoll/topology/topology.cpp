#include "atoll/topology/topology.h"

#include <string>
#include <utility>

#include "atoll/base/endian.h"
#include "atoll/topology/cost_model.h"
#include "atoll/topology/part_weights.h"
#include "atoll/topology/ring_order.h"
#include "atoll/topology/sites.h"

namespace reef {

namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 4;
constexpr std::size_t kFigureBytes = 8;

std::size_t encoded_bytes(std::size_t members) {
  return kHeaderBytes + kFigureBytes * (members + members * members);
}

std::uint32_t to_units(double value, double unit) {
  const double units = value / unit + 0.5;
  if (!(units >= 1)) return 1;
  if (units >= 4'294'967'295.0) return UINT32_MAX;
  return static_cast<std::uint32_t>(units);
}

Error refused(const std::string& why) {
  return Error{Code::protocol, 0, "the view's topology is not valid: " + why};
}

}  // namespace

std::vector<std::byte> encode_topology(const Topology& topology) {
  const std::size_t members = topology.members;
  check(members >= 2 && members <= kMaxTopologyMembers, "encode_topology: too few or many members");
  check(topology.links.size() == members * members &&
            topology.egress_bytes_per_s.size() == members &&
            topology.ingress_bytes_per_s.size() == members,
        "encode_topology: figures are missing");
  std::vector<std::byte> bytes(encoded_bytes(members));
  bytes[0] = std::byte{kVersion};
  store_le(bytes.data() + 2, static_cast<std::uint16_t>(members));
  std::byte* at = bytes.data() + kHeaderBytes;
  const auto put = [&at](std::uint32_t first, std::uint32_t second) {
    store_le(at, first);
    store_le(at + 4, second);
    at += kFigureBytes;
  };
  for (std::size_t i = 0; i < members; ++i) {
    put(to_units(topology.egress_bytes_per_s[i], kRateUnit),
        to_units(topology.ingress_bytes_per_s[i], kRateUnit));
  }
  for (std::size_t i = 0; i < members * members; ++i) {
    const LinkFigures& link = topology.links[i];
    if (i / members == i % members) {
      put(0, 0);
    } else {
      put(to_units(link.bytes_per_s, kRateUnit), to_units(link.rtt_s, kRttUnit));
    }
  }
  return bytes;
}

Result<std::shared_ptr<const Topology>> parse_topology(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) return refused("it is cut short");
  if (bytes[0] != std::byte{kVersion}) {
    return refused("version " + std::to_string(std::to_integer<unsigned>(bytes[0])) +
                   ", this program knows " + std::to_string(kVersion));
  }
  if (bytes[1] != std::byte{0}) return refused("its reserved byte is not zero");
  const std::size_t members = load_le<std::uint16_t>(bytes.data() + 2);
  if (members < 2 || members > kMaxTopologyMembers) {
    return refused(std::to_string(members) + " members");
  }
  if (bytes.size() != encoded_bytes(members)) return refused("its length is wrong");
  auto topology = std::make_shared<Topology>();
  topology->members = static_cast<Rank>(members);
  const std::byte* at = bytes.data() + kHeaderBytes;
  for (std::size_t i = 0; i < members; ++i, at += kFigureBytes) {
    const auto egress = load_le<std::uint32_t>(at);
    const auto ingress = load_le<std::uint32_t>(at + 4);
    if (egress == 0 || ingress == 0) return refused("a member that can send or receive nothing");
    topology->egress_bytes_per_s.push_back(egress * kRateUnit);
    topology->ingress_bytes_per_s.push_back(ingress * kRateUnit);
  }
  for (std::size_t i = 0; i < members * members; ++i, at += kFigureBytes) {
    const auto rate = load_le<std::uint32_t>(at);
    const auto rtt = load_le<std::uint32_t>(at + 4);
    const bool diagonal = i / members == i % members;
    if (diagonal ? (rate != 0 || rtt != 0) : (rate == 0 || rtt == 0)) {
      return refused("a link without figures, or a member's link to itself");
    }
    topology->links.push_back(LinkFigures{rate * kRateUnit, rtt * kRttUnit});
  }
  derive(*topology);
  return std::shared_ptr<const Topology>(std::move(topology));
}

void derive(Topology& topology) {
  Derived& derived = topology.derived;
  derived.site = find_sites(topology);
  derived.sites = 0;
  for (const std::uint32_t site : derived.site) {
    if (site + 1 > derived.sites) derived.sites = site + 1;
  }
  derived.ring = ring_order(topology, kNominalRing);
  derived.part_weights = part_weights(topology);
  derived.site_weights = site_weights(topology);
  derive_costs(topology);
}

}  // namespace reef
