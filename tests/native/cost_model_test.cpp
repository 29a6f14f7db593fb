// The choice of a plan.
#include "atoll/topology/cost_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "atoll/topology/part_weights.h"
#include "topology_samples.h"

namespace reef {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr std::uint64_t kChunk = 256 * 1024;

double seconds(const PlanChoice& choice, PlanKind plan) {
  return choice.seconds[static_cast<std::size_t>(plan)];
}

Topology derived(Topology topology) {
  derive(topology);
  return topology;
}

PlanChoice chosen(const Topology& topology, std::uint64_t bytes) {
  return choose(&topology, PlanRequest::of(topology.members, bytes, kChunk), {});
}

TEST(CostModel, WithoutFiguresSmallVectorsDoubleAndOthersGoDirect) {
  const PlanDefaults defaults{.small_max_bytes = 1'000};
  EXPECT_EQ(choose(nullptr, PlanRequest::of(5, 1'000, kChunk), defaults).plan, PlanKind::doubling);
  EXPECT_EQ(choose(nullptr, PlanRequest::of(5, 1'001, kChunk), defaults).plan, PlanKind::direct);
  PlanRequest request = PlanRequest::of(5, 10, kChunk);
  request.allowed[static_cast<std::size_t>(PlanKind::doubling)] = false;
  EXPECT_EQ(choose(nullptr, request, defaults).plan, PlanKind::direct);
  request.allowed[static_cast<std::size_t>(PlanKind::direct)] = false;
  EXPECT_EQ(choose(nullptr, request, defaults).plan, PlanKind::ring);
  // Figures of another number of members are no figures.
  const Topology other = derived(uniform_topology(3, 1e8, 0.1));
  EXPECT_EQ(choose(&other, PlanRequest::of(5, 1'001, kChunk), defaults).plan, PlanKind::direct);
  EXPECT_EQ(seconds(choose(&other, PlanRequest::of(5, 1'001, kChunk), defaults), PlanKind::ring),
            0);
}

TEST(CostModel, EqualLinesHaveTheTextbooksTimes) {
  const double rate = 1e8;
  const double latency = 0.02;
  const Topology topology = derived(uniform_topology(8, rate, 2 * latency));
  const double bytes = 64.0 * kMiB;
  const double chunk = kChunk;
  const PlanChoice choice = chosen(topology, 64 * kMiB);
  const double all = 2 * 7.0 / 8 * bytes / rate;
  EXPECT_NEAR(seconds(choice, PlanKind::direct), all + latency + chunk / rate, 1e-3 * all);
  // Where the way is longer than a line is busy with contributions, it is waited for twice.
  const double small = 2 * 7.0 / 8 * 80'000 / rate;
  EXPECT_NEAR(seconds(chosen(topology, 80'000), PlanKind::direct),
              small / 2 + 2 * (latency + 10'000 / rate), 1e-3 * small);
  EXPECT_NEAR(seconds(choice, PlanKind::ring), all + latency + chunk / rate, 1e-3 * all);
  EXPECT_NEAR(seconds(choice, PlanKind::doubling), 3 * (bytes / rate + latency), 1e-9);
  EXPECT_EQ(seconds(choice, PlanKind::grouped), INFINITY);
  // Six members: four double, two fold in and out.
  const Topology six = derived(uniform_topology(6, rate, 2 * latency));
  EXPECT_NEAR(seconds(chosen(six, 4'000), PlanKind::doubling), 4 * (4'000 / rate + latency), 1e-9);
}

// A view too large for figures goes by the same formulas: equal lines take the same time.
TEST(CostModel, WithoutFiguresEqualLinesTakeAsLongAsWithThem) {
  for (const Rank members : {2u, 3u, 8u, 11u}) {
    for (const std::uint64_t bytes : {std::uint64_t{400}, 64 * kMiB}) {
      const Topology topology = derived(uniform_topology(members, 1e8, 0.04));
      const PlanChoice known = chosen(topology, bytes);
      const Bounds bounds{0.02, {1e8, members * 0.02, members / 1e8}};
      const PlanRequest request = PlanRequest::of(members, bytes, kChunk);
      for (std::size_t plan = 0; plan < kPlanKinds; ++plan) {
        const double told = unmeasured_seconds(static_cast<PlanKind>(plan), bounds, request);
        if (std::isinf(known.seconds[plan])) {
          EXPECT_TRUE(std::isinf(told));
          continue;
        }
        // Weights of parts are rounded to 65,536ths.
        EXPECT_NEAR(told, known.seconds[plan], 1e-3 * told) << members << " " << plan;
      }
    }
  }
}

TEST(CostModel, SmallVectorsTakeFewStepsAndLargeOnesFewBytes) {
  const Topology topology = derived(uniform_topology(8, 1e8, 0.04));
  const PlanChoice small = chosen(topology, 400);
  EXPECT_EQ(small.plan, PlanKind::mesh);  // one latency
  EXPECT_NEAR(seconds(small, PlanKind::mesh), 7 * 400 / 1e8 + 0.02, 1e-9);
  EXPECT_NEAR(seconds(small, PlanKind::direct), 0.04, 1e-4);  // two, against three
  EXPECT_NEAR(seconds(small, PlanKind::doubling), 0.06, 1e-4);
  EXPECT_LT(seconds(small, PlanKind::doubling), seconds(small, PlanKind::ring));
  const Topology four = derived(uniform_topology(4, 1e8, 0.04));
  EXPECT_NEAR(seconds(chosen(four, 400), PlanKind::doubling), 0.04, 1e-4);
  EXPECT_EQ(chosen(topology, 256 * kMiB).plan, PlanKind::direct);
}

TEST(CostModel, AlmostEqualIsNotBetter) {
  // Two chunks' time more than the ring's: 0.2 % of a large vector.
  const Topology topology = derived(uniform_topology(6, 1e8, 0.001));
  const PlanChoice choice = chosen(topology, 256 * kMiB);
  EXPECT_LT(seconds(choice, PlanKind::ring), seconds(choice, PlanKind::direct));
  EXPECT_EQ(choice.plan, PlanKind::direct);
}

TEST(CostModel, TheRingGoesAroundASlowLink) {
  Topology topology = uniform_topology(6, 1e8, 0.01);
  link_of(topology, 1, 4).bytes_per_s = 1e6;
  link_of(topology, 4, 1).bytes_per_s = 1e6;
  topology = derived(topology);
  EXPECT_EQ(chosen(topology, 64 * kMiB).plan, PlanKind::ring);
}

TEST(CostModel, ASlowMemberMakesTheDirectPlanBetterThanTheRing) {
  Topology topology = uniform_topology(6, 1e8, 0.01);
  for (Rank other = 0; other < 6; ++other) {
    if (other == 2) continue;
    link_of(topology, 2, other).bytes_per_s = 1e7;
    link_of(topology, other, 2).bytes_per_s = 1e7;
  }
  lines_from_links(topology);
  topology = derived(topology);
  const PlanChoice choice = chosen(topology, 64 * kMiB);
  EXPECT_EQ(choice.plan, PlanKind::direct);
  EXPECT_EQ(topology.derived.part_weights[2], 0u);
  // It sends its vector once and receives the result once; on the ring 5/3 of it.
  EXPECT_NEAR(seconds(choice, PlanKind::direct), 64.0 * kMiB / 1e7, 0.2);
  EXPECT_NEAR(seconds(choice, PlanKind::ring), 64.0 * kMiB / 1e7 * 10 / 6, 0.2);
}

TEST(CostModel, SitesWithASharedWayOutAreGrouped) {
  const Topology topology = derived(sites_topology({0, 0, 0, 0, 1, 1, 1, 1}, 2));
  EXPECT_EQ(topology.derived.sites, 2u);
  const PlanChoice choice = chosen(topology, 64 * kMiB);
  EXPECT_EQ(choice.plan, PlanKind::grouped);
  // Over the border: the site's sums of the other's parts, and the results of its own.
  EXPECT_NEAR(seconds(choice, PlanKind::grouped), 64.0 * kMiB / 30e6, 0.5);
  // Direct, every member's own contributions would cross it.
  EXPECT_NEAR(seconds(choice, PlanKind::direct) / seconds(choice, PlanKind::grouped), 4, 0.6);
  PlanRequest request = PlanRequest::of(8, 64 * kMiB, kChunk);
  request.allowed[static_cast<std::size_t>(PlanKind::grouped)] = false;
  EXPECT_EQ(choose(&topology, request, {}).plan, PlanKind::ring);
}

// Two in one site and four in the other: two slices, each led by one member of either site.
TEST(CostModel, LeadersOfALargeSiteCarryMore) {
  const std::vector<std::uint32_t> site = {0, 0, 1, 1, 1, 1};
  Topology topology = uniform_topology(6, 1e9, 1e-3);
  for (Rank a = 0; a < 6; ++a) {
    for (Rank b = 0; b < 6; ++b) {
      if (site[a] != site[b]) link_of(topology, a, b) = {5e8, 0.05};
    }
  }
  topology = derived(topology);
  ASSERT_EQ(topology.derived.site, site);
  // A leader of the large site: contributions of one slice to the other leader, results of its own
  // to three members, and its half of what crosses the border (1/2 + 1/2 of the vector).
  EXPECT_NEAR(topology.derived.grouped_s_per_byte, (0.5 + 1.5 + 0.5) / 1e9, 1e-13);
}

TEST(CostModel, APlansOwnBytesCount) {
  const Topology topology = derived(uniform_topology(4, 1e8, 0.01));
  PlanRequest request = PlanRequest::of(4, 64 * kMiB, kChunk);
  // The ring must carry sums in fp32, the direct plan codes: a quarter.
  request.wire_bytes[static_cast<std::size_t>(PlanKind::direct)] = 16 * kMiB;
  EXPECT_EQ(choose(&topology, request, {}).plan, PlanKind::direct);
  request.wire_bytes[static_cast<std::size_t>(PlanKind::direct)] = 256 * kMiB;
  EXPECT_EQ(choose(&topology, request, {}).plan, PlanKind::ring);
}

TEST(CostModel, OneAllowedPlanIsTaken) {
  const Topology topology = derived(sites_topology({0, 0, 1}, 1));
  for (std::size_t plan = 0; plan < kPlanKinds; ++plan) {
    PlanRequest request = PlanRequest::of(3, kMiB, kChunk);
    request.allowed.fill(false);
    request.allowed[plan] = true;
    EXPECT_EQ(choose(&topology, request, {}).plan, static_cast<PlanKind>(plan));
  }
  // Grouped alone, where there are no sites: still that, for somebody asked for it.
  const Topology flat = derived(uniform_topology(3, 1e8, 0.01));
  PlanRequest request = PlanRequest::of(3, kMiB, kChunk);
  request.allowed.fill(false);
  request.allowed[static_cast<std::size_t>(PlanKind::grouped)] = true;
  EXPECT_EQ(choose(&flat, request, {}).plan, PlanKind::grouped);
}

TEST(CostModel, AllMembersChooseTheSame) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto members = static_cast<Rank>(2 + seed % 9);
    const auto bytes = encode_topology(random_topology(members, seed));
    const auto one = parse_topology(bytes);
    const auto other = parse_topology(bytes);
    ASSERT_TRUE(one.ok() && other.ok());
    EXPECT_EQ(one.value()->derived.ring, other.value()->derived.ring);
    EXPECT_EQ(one.value()->derived.part_weights, other.value()->derived.part_weights);
    for (std::uint64_t size = 4; size <= 256 * kMiB; size *= 8) {
      const PlanChoice a = chosen(*one.value(), size);
      const PlanChoice b = chosen(*other.value(), size);
      EXPECT_EQ(a.plan, b.plan);
      EXPECT_EQ(a.seconds, b.seconds);
      for (const PlanKind plan : {PlanKind::ring, PlanKind::direct, PlanKind::doubling}) {
        EXPECT_GT(seconds(a, plan), 0);
        EXPECT_GE(seconds(a, plan), 0.95 * 0.95 * seconds(a, a.plan));
      }
    }
  }
}

}  // namespace
}  // namespace reef
