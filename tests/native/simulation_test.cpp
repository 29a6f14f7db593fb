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
    const World::Coverage coverage = world.coverage();
    sum.committed += coverage.committed;
    sum.failed += coverage.failed;
    sum.rerun += coverage.rerun;
    sum.stale += coverage.stale;
    sum.early += coverage.early;
    sum.aborts += coverage.aborts;
    sum.drains += coverage.drains;
  }
  std::printf("committed %llu, failed %llu, rerun %llu; stale %llu, early %llu; "
              "installs: abort %llu, drain %llu\n",
              static_cast<unsigned long long>(sum.committed),
              static_cast<unsigned long long>(sum.failed),
              static_cast<unsigned long long>(sum.rerun),
              static_cast<unsigned long long>(sum.stale),
              static_cast<unsigned long long>(sum.early),
              static_cast<unsigned long long>(sum.aborts),
              static_cast<unsigned long long>(sum.drains));
  if (one == 0 && last >= 1'000) {  // the worlds are not tame
    EXPECT_GT(sum.rerun, last / 2);
    EXPECT_GT(sum.stale, last / 2);
    EXPECT_GT(sum.early, last);
    EXPECT_GT(sum.failed, last);
    EXPECT_GT(sum.drains, last);
  }
}

}  // namespace
}  // namespace reef::sim
