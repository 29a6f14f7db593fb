// Which plan an all-reduce should take: predicted seconds of each, and the least. Pure functions;
// any thread. docs/collectives.md has the formulas.
//
// Every member asks with the same topology (it came with the view) and the same request (it follows
// from the op's description), so all choose the same plan.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "atoll/topology/topology.h"

namespace reef {

enum class PlanKind : std::uint8_t { ring = 0, direct = 1, doubling = 2, grouped = 3, mesh = 4 };
inline constexpr std::size_t kPlanKinds = 5;

struct PlanRequest {
  Rank members = 1;
  // By plan: bytes of the whole vector as it travels in that plan (elements times the codec's bytes
  // for one), and whether the plan may be taken at all.
  std::array<std::uint64_t, kPlanKinds> wire_bytes{};
  std::array<bool, kPlanKinds> allowed{};
  std::uint64_t chunk_bytes = 0;  // as it travels

  // All plans allowed, each with the same bytes.
  [[nodiscard]] static PlanRequest of(Rank members, std::uint64_t wire_bytes,
                                      std::uint64_t chunk_bytes);
};

// What holds where nothing was measured.
struct PlanDefaults {
  // A vector of at most so many bytes takes the doubling plan, a larger one the direct plan.
  std::uint64_t small_max_bytes = 0;
};

struct PlanChoice {
  PlanKind plan = PlanKind::direct;
  // Predicted, by plan. Infinity: the plan is not allowed, or makes no sense here (grouped without
  // at least two sites, one of which has two members). All zero without a topology.
  std::array<double, kPlanKinds> seconds{};
};

// The plan with the least seconds. In the order direct, ring, doubling, grouped, mesh a plan is
// preferred to those before it only if it takes less than 95 % of their time: figures are no better
// than that. `topology` may be null. One that is not of this number of members counts as null. At
// least one plan must be allowed.
[[nodiscard]] PlanChoice choose(const Topology* topology, const PlanRequest& request,
                                const PlanDefaults& defaults);

// A network of which a view has no figures (it is too large for them), as somebody else knows it.
struct Bounds {
  double latency_s = 0;  // one way, of the slowest link
  RingFigures ring;      // in the order of ranks; no line is slower than its slowest link
};
// Predicted seconds of a plan as it runs without figures: equal parts, the ring in the order of
// ranks. No site shares a way out. Infinity for the grouped plan.
[[nodiscard]] double unmeasured_seconds(PlanKind plan, const Bounds& bounds,
                                        const PlanRequest& request);

// Fills in derived's figures for choose(). Needs all else of derived.
void derive_costs(Topology& topology);

}  // namespace reef
