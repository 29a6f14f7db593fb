// What was measured of the links between a view's members, and what follows from it for the plans.
// Values; any thread.
//
// All members hold the same bytes of a topology (they come with the view) and must draw the same
// conclusions from them, whatever their processors and compilers. So everything in this folder is a
// pure function of those bytes: figures travel as integers, and what is computed from them uses
// additions, subtractions, multiplications, divisions and comparisons of doubles alone, in an order
// that the source fixes. IEEE 754 fixes the bits of these, contraction to FMA is off for the whole
// core, and no function of the mathematical library is called. Ties go to the lower rank. No
// clock, no random numbers but seeded ones, no hash order; effort is counted, never timed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"

namespace reef {

struct LinkFigures {
  double bytes_per_s = 0;
  double rtt_s = 0;
  bool operator==(const LinkFigures&) const = default;
};

// A ring, as far as its time depends on the links it uses.
struct RingFigures {
  double slowest_bytes_per_s = 0;
  double latency_s = 0;         // one way, summed over the ring's links
  double seconds_per_byte = 0;  // 1 / rate, summed over the ring's links
};

// What all ops of a view share. Computed by derive().
struct Derived {
  std::vector<std::uint32_t> site;  // by member: sites are numbered by their lowest ranks
  std::uint32_t sites = 0;
  std::vector<Rank> ring;  // the ring's order, from rank 0
  RingFigures ring_figures;
  std::vector<std::uint32_t> part_weights;  // direct: by owner; they add up to kPartScale
  std::vector<std::uint32_t> site_weights;  // grouped: by site; they add up to kPartScale
  std::vector<double> border_bytes_per_s;   // by site: its way out and in, the slower of both
  // Seconds for each byte of the vector, and for the first bytes to come through.
  double direct_s_per_byte = 0;
  double grouped_s_per_byte = 0;
  double mesh_s_per_byte = 0;
  double latency_s = 0;        // one way, of the slowest link
  double inner_latency_s = 0;  // of the slowest link inside a site
  double slowest_bytes_per_s = 0;
};

struct Topology {
  Rank members = 0;
  std::vector<LinkFigures> links;  // row-major, from * members + to; the diagonal is zero
  // What a member can send or receive over all its links together.
  std::vector<double> egress_bytes_per_s;
  std::vector<double> ingress_bytes_per_s;
  Derived derived;

  [[nodiscard]] const LinkFigures& link(Rank from, Rank to) const {
    return links[static_cast<std::size_t>(from) * members + to];
  }
  // One way, in seconds: half of the round trip.
  [[nodiscard]] double latency(Rank from, Rank to) const { return link(from, to).rtt_s / 2; }
  // What both directions between two members reach.
  [[nodiscard]] double both_ways(Rank a, Rank b) const {
    const double out = link(a, b).bytes_per_s;
    const double back = link(b, a).bytes_per_s;
    return out < back ? out : back;
  }
};

// More members than this have no topology: 256 members' figures are half a mebibyte.
inline constexpr Rank kMaxTopologyMembers = 256;
// Part weights are in 65,536ths: boundaries of parts are then exact integers (2^38 elements at
// most).
inline constexpr std::uint32_t kPartScale = 65'536;
// The slowest and fastest rate, the shortest and longest round trip that a figure can say.
inline constexpr double kRateUnit = 1'000;  // bytes per second
inline constexpr double kRttUnit = 1e-6;    // seconds

// The bytes of a topology (all integers little-endian):
//   0  u8   version, 1
//   1  u8   reserved, 0
//   2  u16  members, 2 .. kMaxTopologyMembers
//   4  per member: u32 egress, u32 ingress, in units of 1,000 bytes/s, at least 1
//      then per link, row-major: u32 rate in units of 1,000 bytes/s, u32 round trip in
//      microseconds, both at least 1; 0 and 0 on the diagonal.
// Only figures travel; what is derived is derived again. Figures are rounded to their units and
// clamped to what can be said, so what parse() returns is what was sent after rounding.
[[nodiscard]] std::vector<std::byte> encode_topology(const Topology& topology);
// Refuses (protocol) bytes of any other shape. What it returns is complete: derive() has run.
[[nodiscard]] Result<std::shared_ptr<const Topology>> parse_topology(
    std::span<const std::byte> bytes);
// Computes `derived` from the figures. Takes some 30 ms for 12 members at worst, and a second for
// 256: not for the reactor's thread.
void derive(Topology& topology);

}  // namespace reef
