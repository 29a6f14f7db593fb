// The collectives under faults: thousands of seeded worlds (sim/world.h). A failing seed prints how
// to see it again. ATOLL_SEED runs one seed, ATOLL_SEEDS changes how many are run.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "sim/world.h"

namespace reef::sim {
namespace {

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(Simulation, KeepsItsPromisesUnderFaults) {
  const std::uint64_t one = number_from("ATOLL_SEED", 0);
  const std::uint64_t first = one != 0 ? one : 1;
  const std::uint64_t last = one != 0 ? one : number_from("ATOLL_SEEDS", 3'000);
  World::Coverage sum;
  int broken = 0;
  for (std::uint64_t seed = first; seed <= last && broken < 5; ++seed) {
    World world(seed);
    const std::string failure = world.run();
    if (!failure.empty()) {
      ++broken;
      ADD_FAILURE() << failure << "\n  see it again: ATOLL_TRACE=1 ATOLL_SEED=" << seed
                    << " atoll_tests --gtest_filter='Simulation.*'";
    }
    sum += world.coverage();
  }
  sum.print();
  if (one == 0 && last >= 1'000) {  // the worlds are not tame
    EXPECT_GT(sum.rerun, last / 2);
    EXPECT_GT(sum.stale, last / 2);
    EXPECT_GT(sum.early, last);
    EXPECT_GT(sum.failed, last);
    EXPECT_GT(sum.drains, last);
    EXPECT_GT(sum.repairs, last);
    EXPECT_GT(sum.resent, last);
    EXPECT_GT(sum.cut_short, last / 4);
    EXPECT_GT(sum.thrown_away, last / 100);
    EXPECT_GT(sum.old_attempts, last / 100);
    EXPECT_GT(sum.hopeless, last / 50);
  }
}

// What a broken rule of repair looks like: it must be found, or the simulation proves nothing.
class SimulationFinds : public ::testing::TestWithParam<NamedMutation> {};

TEST_P(SimulationFinds, TheBug) {
  for (std::uint64_t seed = 1; seed <= 2'000; ++seed) {
    World world(seed, GetParam().mutation);
    const std::string failure = world.run();
    if (!failure.empty()) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), failure.c_str());
      return;
    }
  }
  FAIL() << "2000 seeds did not notice";
}

INSTANTIATE_TEST_SUITE_P(Repair, SimulationFinds, ::testing::ValuesIn(kMutations),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace reef::sim
