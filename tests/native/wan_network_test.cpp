// The emulator of wide-area networks, without a network: rates, queues, delays, loss, cuts.
#include "wan/emulator/network.h"

#include <gtest/gtest.h>

#include <vector>

#include "wan/emulator/lateness.h"

namespace wan {
namespace {

constexpr std::uint32_t kBytes = 1'250;  // 1 ms on a line of 10 Mbit/s

Network lines(double mbit, Nanos delay, Host hosts = 3) {
  Network network(hosts, 1);
  for (Host a = 0; a < hosts; ++a) {
    network.line(a).up_bits_per_s = network.line(a).down_bits_per_s = mbit * 1e6;
    for (Host b = 0; b < hosts; ++b) network.path(a, b).delay = delay;
  }
  return network;
}

Burst burst(Host from, Host to, std::uint32_t segments = 1) {
  return Burst{from, to, segments, kBytes, kBytes};
}

// Sends and carries what gets through, under the ticket; how many segments that were.
std::uint32_t pass(Network& network, const Burst& what, Nanos now, std::uint64_t ticket) {
  std::vector<Piece> pieces;
  network.send(what, now, pieces);
  std::uint32_t through = 0;
  for (const Piece& piece : pieces) {
    network.carry(what, piece, ticket);
    through += piece.count;
  }
  return through;
}

std::vector<Delivery> all(Network& network) {
  std::vector<Delivery> deliveries;
  Delivery one;
  while (network.next_due() != kNever) {
    if (network.take(network.next_due(), one)) deliveries.push_back(one);
  }
  return deliveries;
}

TEST(WanNetwork, APacketTakesBothLinesAndTheDelay) {
  Network network = lines(10, 40 * kMillisecond);
  pass(network, burst(0, 1), 5 * kMillisecond, 7);
  const auto got = all(network);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].ticket, 7u);
  EXPECT_EQ(got[0].to, 1u);
  EXPECT_EQ(got[0].due, (5 + 1 + 40 + 1) * kMillisecond);
  EXPECT_EQ(network.tally(0).sent_bytes, kBytes);
  EXPECT_EQ(network.tally(1).delivered_bytes, kBytes);
}

TEST(WanNetwork, TheUplinkIsSharedByAllThatAHostSends) {
  Network network = lines(10, 0);
  pass(network, burst(0, 1), 0, 1);
  pass(network, burst(0, 2), 0, 2);
  const auto got = all(network);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].due, 2 * kMillisecond);
  EXPECT_EQ(got[1].due, 3 * kMillisecond);
}

TEST(WanNetwork, TheDownlinkServesInTheOrderOfArrivalNotOfSending) {
  Network network = lines(10, 0);
  network.path(0, 2).delay = 50 * kMillisecond;
  pass(network, burst(0, 2), 0, 1);  // sent first, from far away
  pass(network, burst(1, 2), 0, 2);
  const auto got = all(network);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].ticket, 2u);
  EXPECT_EQ(got[0].due, 2 * kMillisecond);
  EXPECT_EQ(got[1].due, 52 * kMillisecond);
}

TEST(WanNetwork, ABurstIsAsLongAsItsSegmentsOneByOne) {
  Network together = lines(10, 10 * kMillisecond);
  Network apart = lines(10, 10 * kMillisecond);
  pass(together, burst(0, 1, 8), 0, 1);
  for (std::uint64_t i = 0; i < 8; ++i) pass(apart, burst(0, 1), 0, i);
  EXPECT_EQ(all(together).back().due, all(apart).back().due);
}

TEST(WanNetwork, AFullQueueDropsTheRestOfABurst) {
  Network network = lines(10, 0);
  network.line(0).queue = 4 * kMillisecond;
  EXPECT_EQ(pass(network, burst(0, 1, 20), 0, 1), 5u);  // one on the line, four behind it
  EXPECT_EQ(network.tally(0).dropped_full, 15u);
}

TEST(WanNetwork, ASlowDownlinkDropsWhatItsQueueCannotHold) {
  Network network = lines(10, 0);
  network.line(1).down_bits_per_s = 1e6;  // 10 ms each, while one comes every millisecond
  network.line(1).queue = 30 * kMillisecond;
  pass(network, burst(0, 1, 20), 0, 1);
  const auto got = all(network);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].count, 4u);
  EXPECT_EQ(network.tally(0).dropped_full, 16u);
}

TEST(WanNetwork, APathMayCarryLessThanItsLines) {
  Network network = lines(100, 0);
  network.path(0, 1).bits_per_s = 10e6;
  pass(network, burst(0, 1, 50), 0, 1);
  EXPECT_NEAR(static_cast<double>(all(network).back().due), 50e6, 1e6);
}

TEST(WanNetwork, LossIsOfTheRateThatWasAskedForAndLeavesPieces) {
  Network network = lines(1'000, 0);
  network.path(0, 1).loss = 0.1;
  std::vector<Piece> pieces;
  std::uint32_t through = 0;
  for (int i = 0; i < 1'000; ++i) {
    network.send(burst(0, 1, 10), i * kSecond, pieces);
    std::uint32_t next = 0;
    for (const Piece& piece : pieces) {
      EXPECT_GE(piece.first, next);
      next = piece.first + piece.count + 1;  // neighbours would be one piece
      through += piece.count;
    }
  }
  EXPECT_NEAR(through, 9'000, 150);
  EXPECT_EQ(through + network.tally(0).dropped_lost, 10'000u);
}

TEST(WanNetwork, OneSeedLosesTheSamePackets) {
  const auto survivors = [](std::uint64_t seed) {
    Network network(2, seed);
    network.path(0, 1).loss = 0.5;
    std::vector<Piece> pieces;
    std::vector<std::uint32_t> which;
    for (int i = 0; i < 64; ++i) {
      network.send(burst(0, 1), i, pieces);
      which.push_back(static_cast<std::uint32_t>(pieces.size()));
    }
    return which;
  };
  EXPECT_EQ(survivors(3), survivors(3));
  EXPECT_NE(survivors(3), survivors(4));
}

TEST(WanNetwork, JitterDelaysButNeverReorders) {
  Network network = lines(1'000, 5 * kMillisecond);
  network.path(0, 1).jitter = 20 * kMillisecond;
  for (std::uint64_t i = 0; i < 200; ++i) {
    pass(network, burst(0, 1), static_cast<Nanos>(i) * kMillisecond, i);
  }
  Nanos most = 0;
  std::uint64_t expected = 0;
  for (const Delivery& one : all(network)) {
    EXPECT_EQ(one.ticket, expected++);
    most = std::max(most, one.due - static_cast<Nanos>(one.ticket) * kMillisecond);
  }
  EXPECT_GT(most, 15 * kMillisecond);
  EXPECT_LT(most, 27 * kMillisecond);
}

TEST(WanNetwork, NothingPassesACutOrAnIsolatedHost) {
  Network network = lines(10, 0);
  network.path(0, 1).cut = true;
  network.line(2).isolated = true;
  EXPECT_EQ(pass(network, burst(0, 1), 0, 1), 0u);
  EXPECT_EQ(pass(network, burst(1, 0), 0, 1), 1u);
  EXPECT_EQ(pass(network, burst(1, 2), 0, 1), 0u);
  EXPECT_EQ(pass(network, burst(2, 1, 3), 0, 1), 0u);
  EXPECT_EQ(network.tally(2).dropped_cut, 3u);
}

TEST(WanNetwork, ANewRateHoldsForWhatComesThen) {
  Network network = lines(10, 0);
  pass(network, burst(0, 1), 0, 1);
  network.line(0).up_bits_per_s = 1e6;
  pass(network, burst(0, 1), 0, 2);
  const auto got = all(network);
  EXPECT_EQ(got[0].due, 2 * kMillisecond);
  EXPECT_EQ(got[1].due, 12 * kMillisecond);
}

TEST(WanLateness, PercentilesAreTheLeastThatSoManyDoNotExceed) {
  Lateness lateness;
  EXPECT_EQ(lateness.percentile_micros(99), 0u);
  for (int i = 1; i <= 100; ++i) lateness.add(i * 10'000);
  EXPECT_EQ(lateness.percentile_micros(50), 500u);
  EXPECT_EQ(lateness.percentile_micros(99), 990u);
  EXPECT_EQ(lateness.most_micros(), 1'000u);
}

TEST(WanLateness, ARunIsVoidWhenOneInAHundredIsTooLate) {
  Lateness lateness;
  for (int i = 0; i < 99; ++i) lateness.add(2 * kMillisecond);
  lateness.add(kSecond);
  EXPECT_FALSE(lateness.is_void());
  lateness.add(3 * kMillisecond);
  EXPECT_TRUE(lateness.is_void());
  lateness.reset();
  EXPECT_FALSE(lateness.is_void());
}

}  // namespace
}  // namespace wan
