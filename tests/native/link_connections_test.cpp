// How many connections a new link has: those that were asked for, or what its measured path needs.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <memory>

#include "atoll/base/limits.h"
#include "atoll/net/fd.h"
#include "atoll/net/path.h"
#include "atoll/net/socket.h"
#include "island.h"
#include "topology_samples.h"

namespace reef::testing {
namespace {

// How many connections a link has that is made in a view whose paths hold `windows` windows, when
// `chosen` were asked for.
std::uint32_t remade_with(std::uint32_t chosen, double windows, double rtt_s = 0.01) {
  Atoll atoll(2, [&](EngineOptions& options) { options.connections = chosen; });
  Topology topology = uniform_topology(2, windows * send_window() / rtt_s, rtt_s);
  derive(topology);
  atoll.view.epoch = 2;
  atoll.view.topology = std::make_shared<const Topology>(std::move(topology));
  for (auto& island : atoll.islands) {
    island->install(atoll.view, {}, Change::drain);
  }
  EXPECT_EQ(atoll[0].engine->stats().links.at(0).connections, chosen == 0 ? 2 : chosen);
  atoll[1].engine->drop(atoll[0].id);
  atoll[0].await_down(atoll[1].id);
  atoll[1].await_down(atoll[0].id);
  atoll[0].engine->expect(atoll[1].id);
  atoll[1].engine->dial(atoll[0].id, "127.0.0.1", atoll[0].engine->port());
  atoll[0].await_up(atoll[1].id);
  atoll[1].await_up(atoll[0].id);
  const std::uint32_t made = atoll[1].engine->stats().links.at(0).connections;
  EXPECT_EQ(atoll[0].engine->stats().links.at(0).connections, made);
  return made;
}

TEST(Connections, OfANewLinkAreWhatItsMeasuredPathNeeds) {
  EXPECT_EQ(remade_with(0, 4.5), 5u);
  EXPECT_EQ(remade_with(0, 100), limits::kMaxConnectionsPerLink);
}

TEST(Connections, AreTheUsualOnesOnAShortPath) { EXPECT_EQ(remade_with(0, 0.1), 2u); }

TEST(Connections, AreMoreOnALongPathWhateverItCarries) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool bbr = congestion_of(fd.get()) == "bbr";
  EXPECT_EQ(remade_with(0, 0.1, 0.08), bbr ? 2u : limits::kMaxConnectionsPerLink);
}

TEST(Connections, AreTheChosenOnesWhateverWasMeasured) {
  EXPECT_EQ(remade_with(3, 4.5), 3u);
  EXPECT_EQ(remade_with(1, 4.5), 1u);
}

}  // namespace
}  // namespace reef::testing
