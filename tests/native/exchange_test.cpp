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

OpRequest send_of(Loopback& net, Buffers& buffers, std::size_t to, Sequence tag, Channel channel) {
  OpRequest request = net.exchange(buffers, to, tag, channel);
  request.kind = OpKind::send;
  request.out = {};
  return request;
}

OpRequest recv_of(Loopback& net, Buffers& buffers, std::size_t from, Sequence tag) {
  OpRequest request = net.exchange(buffers, from, tag);
  request.kind = OpKind::recv;
  request.in = {};
  return request;
}

TEST(Send, IsOverForTheReceiverWhenItHasEverything) {
  Loopback net(2);
  net.install_all();
  Buffers sent = numbers(8, 1);
  Buffers got = numbers(8, 0);
  const OpId send = net.submit(0, send_of(net, sent, 1, 5, 0));
  net.run();
  EXPECT_FALSE(net.completed(0, send));
  const OpId recv = net.submit(1, recv_of(net, got, 0, 5));
  EXPECT_TRUE(net.ended_with(1, recv, Code::ok));  // without a word from the sender
  EXPECT_EQ(got.out, sent.in);
  EXPECT_FALSE(net.completed(0, send));
  net.run();
  EXPECT_TRUE(net.ended_with(0, send, Code::ok));
}

TEST(Send, ThatIsGivenUpWhenItHasArrivedDisturbsNoneWithItsTag) {
  Loopback net(2);
  net.install_all();
  Buffers sent = numbers(8, 1);
  Buffers got = numbers(8, 0);
  OpRequest request = send_of(net, sent, 1, 5, 0);
  request.deadline = 10;
  const OpId late = net.submit(0, request);
  net.run();
  EXPECT_TRUE(net.ended_with(1, net.submit(1, recv_of(net, got, 0, 5)), Code::ok));
  net.core(0).tick(10);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, late, Code::deadline));
  net.run();
  Buffers more = numbers(8, 2);
  const OpId send = net.submit(0, send_of(net, more, 1, 5, 0));
  net.run();
  const OpId recv = net.submit(1, recv_of(net, got, 0, 5));
  net.run();
  EXPECT_TRUE(net.ended_with(1, recv, Code::ok));
  EXPECT_TRUE(net.ended_with(0, send, Code::ok));
  EXPECT_EQ(got.out, more.in);
}

TEST(Listening, TellsOfSendsThatNobodyReceivesYetAndOfThoseThatWait) {
  Loopback net(3);
  net.install_all();
  Buffers one = numbers(8, 1);
  Buffers two = numbers(8, 2);
  net.submit(0, send_of(net, one, 1, 5, 3));
  net.run();
  EXPECT_TRUE(net.offered().empty());
  net.core(1).listen(3);
  net.core(1).listen(3);
  net.collect();
  ASSERT_EQ(net.offered().size(), 1u);
  EXPECT_EQ(net.offered()[0].peer, peer_id(0));
  EXPECT_EQ(net.offered()[0].channel, 3u);
  EXPECT_EQ(net.offered()[0].tag, 5u);

  net.submit(2, send_of(net, two, 1, 6, 3));
  net.submit(2, send_of(net, two, 1, 6, 4));  // of another channel
  net.submit(2, net.exchange(two, 1, 7, 3));  // no send
  net.run();
  ASSERT_EQ(net.offered().size(), 2u);
  EXPECT_EQ(net.offered()[1].peer, peer_id(2));
  EXPECT_EQ(net.offered()[1].tag, 6u);

  // What was offered is received as ever; what is expected is no offer.
  for (const auto& [from, tag] : {std::pair<std::size_t, Sequence>{2, 6}, {0, 8}}) {
    Buffers got = numbers(8, 0);
    OpRequest request = net.exchange(got, from, tag, 3);
    request.kind = OpKind::recv;
    request.in = {};
    const OpId op = net.submit(1, request);
    if (tag == 8) net.submit(0, send_of(net, one, 1, 8, 3));
    net.run();
    EXPECT_TRUE(net.ended_with(1, op, Code::ok));
    EXPECT_EQ(got.out, tag == 6 ? two.in : one.in);
  }
  EXPECT_EQ(net.offered().size(), 2u);
}

}  // namespace
}  // namespace reef::testing
