// Pair exchanges: best effort, apart from the channel's order, and over with the link or the view.

#include "loopback.h"

namespace reef::testing {
namespace {

Buffers numbers(std::size_t count, float value) {
  return {std::vector<float>(count, value), std::vector<float>(count, -1.0F)};
}

TEST(Exchange, EndsWithTheLink) {
  Loopback net(3);
  net.install_all();
  Buffers one = numbers(8, 1);
  Buffers two = numbers(8, 2);
  Buffers vector = numbers(8, 3);
  const OpId with_one = net.submit(0, net.exchange(one, 1, 5));
  const OpId with_two = net.submit(0, net.exchange(two, 2, 5));
  const OpId op = net.submit(0, net.all_reduce(vector));
  net.core(0).link_down(peer_id(1), 0);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, with_one, Code::peer_lost));
  EXPECT_FALSE(net.completed(0, with_two));
  EXPECT_FALSE(net.completed(0, op));  // waits for the coordinator's verdict
}

TEST(Exchange, ADeadlineEndsItOnBothSides) {
  Loopback net(2);
  net.install_all();
  Buffers one = numbers(8, 1);
  Buffers two = numbers(8, 2);
  OpRequest request = net.exchange(one, 1, 5);
  request.deadline = 10;
  const OpId first = net.submit(0, request);
  net.run();
  net.core(0).tick(10);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, first, Code::deadline));
  net.run();
  const OpId second = net.submit(1, net.exchange(two, 0, 5));
  EXPECT_TRUE(net.ended_with(1, second, Code::deadline));
  net.run();
  // A later one with another tag is not disturbed.
  const OpId third = net.submit(0, net.exchange(one, 1, 6));
  net.submit(1, net.exchange(two, 0, 6));
  net.run();
  EXPECT_TRUE(net.ended_with(0, third, Code::ok));
}

TEST(Exchange, NeedsAPartnerInTheView) {
  Loopback net(3);
  Buffers buffers = numbers(8, 1);
  EXPECT_TRUE(net.ended_with(0, net.submit(0, net.exchange(buffers, 1, 1)), Code::not_member));
  net.core(0).install(Loopback::view_of(1, {0, 1}), {}, Change::abort, 0);
  EXPECT_TRUE(net.ended_with(0, net.submit(0, net.exchange(buffers, 2, 1)), Code::peer_lost));
  const OpId op = net.submit(0, net.exchange(buffers, 1, 1));
  EXPECT_FALSE(net.completed(0, op));
  net.core(0).install(Loopback::view_of(2, {0}), {}, Change::drain, 0);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, op, Code::peer_lost));
}

TEST(Exchange, DisagreementFailsBoth) {
  for (std::uint64_t seed = 1; seed < 50; ++seed) {
    CoreOptions options;
    options.chunk_bytes = 16;
    Loopback net(2, options);
    net.shuffle(seed);
    net.install_all();
    Buffers one = numbers(40, 1);
    Buffers two = numbers(41, 2);
    const OpId first = net.submit(0, net.exchange(one, 1, 5));
    const OpId second = net.submit(1, net.exchange(two, 0, 5));
    net.run();
    EXPECT_TRUE(net.ended_with(0, first, Code::mismatch));
    EXPECT_TRUE(net.ended_with(1, second, Code::mismatch));
    EXPECT_TRUE(net.blamed().empty());
  }
}

}  // namespace
}  // namespace reef::testing
