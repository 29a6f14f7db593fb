// How one op fails inside one view: members that disagree, deadlines, aborts, a root that is missing.

#include "op_samples.h"

namespace reef::testing {
namespace {

TEST(Mismatch, FailsOnAllAndIsNobodysFault) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    CoreOptions options;
    options.chunk_bytes = 40;
    options.eager_bytes = seed % 3 == 0 ? 0 : 1'000;
    Loopback net(3, options);
    net.shuffle(seed);
    net.install_all();
    std::vector<Buffers> buffers(3, numbers(60, 1));
    Buffers longer = numbers(61, 1);
    std::vector<OpId> ops;
    for (std::size_t peer = 0; peer < 3; ++peer) {
      OpRequest request = net.all_reduce(buffers[peer], 0, Plan::ring);
      if (peer == seed % 3) {
        switch (seed / 3 % 5) {
          case 0: request.plan = Plan::direct; break;
          case 1: request.chunk_bytes = 44; break;
          case 2:
            ops.push_back(net.submit(peer, net.barrier()));
            net.step(everything);
            continue;
          case 3: request = net.all_reduce(longer, 0, Plan::ring); break;
          default:
            request = net.broadcast(buffers[peer], peer);
        }
      }
      ops.push_back(net.submit(peer, request));
      net.step(everything);
    }
    net.run();
    for (std::size_t peer = 0; peer < 3; ++peer) {
      EXPECT_TRUE(net.ended_with(peer, ops[peer], Code::mismatch)) << seed;
      EXPECT_EQ(net.core(peer).progress()[0], (Counters{1, 1, 1}));
    }
    EXPECT_TRUE(net.blamed().empty()) << seed;
    // And the channel goes on.
    for (std::size_t peer = 0; peer < 3; ++peer) ops[peer] = net.submit(peer, net.barrier());
    net.run();
    EXPECT_TRUE(net.ended_with(2, ops[2], Code::ok));
  }
}

TEST(Deadline, LetsItsCallerGoThoughTheOthersNeverCome) {
  Loopback net(3);
  net.install_all();
  std::vector<Buffers> buffers(3, numbers(10, 1));
  OpRequest request = net.all_reduce(buffers[0]);
  request.deadline = 100;
  const OpId op = net.submit(0, request);
  EXPECT_EQ(net.core(0).tick(99), 100);
  net.collect();
  EXPECT_FALSE(net.completed(0, op));
  EXPECT_EQ(net.core(0).tick(100), kNever);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, op, Code::deadline));
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 0, 0}));
  net.run();
  // Who comes late fails at once, and is let go when all have come.
  const OpId second = net.submit(1, net.all_reduce(buffers[1]));
  net.run();
  EXPECT_FALSE(net.completed(1, second));
  const OpId third = net.submit(2, net.all_reduce(buffers[2]));
  net.run();
  EXPECT_TRUE(net.ended_with(1, second, Code::deadline));
  EXPECT_TRUE(net.ended_with(2, third, Code::deadline));
  for (std::size_t peer = 0; peer < 3; ++peer) {
    EXPECT_EQ(net.core(peer).progress()[0], (Counters{1, 1, 1}));
    EXPECT_EQ(net.core(peer).tally().ops_failed, 1u);
  }
}

TEST(Deadline, AFailedOpsOwnDeadlineLetsItsCallerGo) {
  Loopback net(3);
  net.install_all();
  OpRequest request = net.barrier();
  request.deadline = 200;
  const OpId op = net.submit(0, request);
  const OpId aborted = net.submit(1, net.barrier());
  net.core(1).abort(aborted, 0);
  net.collect();
  net.run();
  EXPECT_FALSE(net.completed(0, op));  // the third has not come
  net.core(0).tick(200);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, op, Code::aborted));  // that is what it failed of
}

TEST(Deadline, DoesNothingOnceTheOpIsDone) {
  Loopback net(2);
  net.install_all();
  Buffers one = numbers(4, 1);
  Buffers two = numbers(4, 2);
  OpRequest request = net.all_reduce(one);
  request.deadline = 100;
  const OpId op = net.submit(0, request);
  net.submit(1, net.all_reduce(two));
  net.run_only(no_done);
  net.core(0).tick(1'000);
  net.core(0).abort(op, 1'000);
  net.collect();
  EXPECT_FALSE(net.completed(0, op));
  net.run();
  EXPECT_TRUE(net.ended_with(0, op, Code::ok));
}

TEST(Deadline, TheMemberThatIsDoneHearsOfTheFailure) {
  Loopback net(2);
  net.install_all();
  const OpId one = net.submit(0, net.barrier());
  const OpId two = net.submit(1, net.barrier());
  net.run_only([](const Frame& frame) { return frame.to == 0; });  // START of 1
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 0}));
  net.core(1).abort(two, 0);
  net.collect();
  EXPECT_TRUE(net.ended_with(1, two, Code::aborted));
  net.run();
  EXPECT_TRUE(net.ended_with(0, one, Code::aborted));
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 1}));
  EXPECT_EQ(net.core(1).progress()[0], (Counters{1, 1, 1}));
}

TEST(Abort, AQueuedOpKeepsItsPlace) {
  Loopback net(2);
  net.install_all();
  Buffers one = numbers(4, 1);
  Buffers two = numbers(4, 2);
  std::vector<OpId> zero;
  std::vector<OpId> other;
  zero.push_back(net.submit(0, net.barrier()));
  zero.push_back(net.submit(0, net.all_reduce(one)));
  zero.push_back(net.submit(0, net.barrier()));
  net.core(0).abort(zero[1], 0);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, zero[1], Code::aborted));
  EXPECT_EQ(net.completed(0, zero[1])->sequence, 1u);
  one.in.clear();  // the caller has its buffers back
  one.out.clear();
  other.push_back(net.submit(1, net.barrier()));
  other.push_back(net.submit(1, net.all_reduce(two)));
  other.push_back(net.submit(1, net.barrier()));
  net.run();
  EXPECT_TRUE(net.ended_with(1, other[0], Code::ok));
  EXPECT_TRUE(net.ended_with(1, other[1], Code::aborted));
  EXPECT_TRUE(net.ended_with(1, other[2], Code::ok));
  EXPECT_TRUE(net.ended_with(0, zero[2], Code::ok));
  EXPECT_EQ(net.completed(0, zero[2])->sequence, 2u);
}

TEST(Failure, TheSmallestReasonIsTheOutcome) {
  Loopback net(3);
  net.install_all();
  std::vector<OpId> ops;
  for (std::size_t peer = 0; peer < 3; ++peer) {
    OpRequest request = net.barrier();
    if (peer == 1) request.deadline = 5;
    ops.push_back(net.submit(peer, request));
  }
  net.core(0).abort(ops[0], 5);
  net.core(1).tick(5);
  net.collect();
  net.run();
  EXPECT_TRUE(net.ended_with(0, ops[0], Code::aborted));
  EXPECT_TRUE(net.ended_with(1, ops[1], Code::deadline));
  EXPECT_TRUE(net.ended_with(2, ops[2], Code::deadline));
}

TEST(Failure, ABroadcastWithoutItsRootFailsOnAll) {
  Loopback net(3);
  for (std::size_t peer = 0; peer < 2; ++peer) {
    net.core(peer).install(Loopback::view_of(1, {0, 1}), {}, Change::abort, 0);
  }
  Buffers one = numbers(4, 1);
  Buffers two = numbers(4, 1);
  const OpId first = net.submit(0, net.broadcast(one, 2));
  const OpId second = net.submit(1, net.broadcast(two, 2));
  net.run();
  EXPECT_TRUE(net.ended_with(0, first, Code::peer_lost));
  EXPECT_TRUE(net.ended_with(1, second, Code::peer_lost));
}

}  // namespace
}  // namespace reef::testing
