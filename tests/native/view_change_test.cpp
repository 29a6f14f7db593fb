// From one view to the next, by hand: each rule of docs/design.md 3.1 and the traps around it.

#include "loopback.h"

namespace reef::testing {
namespace {

Buffers numbers(std::size_t count, float value) {
  return {std::vector<float>(count, value), std::vector<float>(count, -1.0F)};
}
bool all(const std::vector<float>& values, float value) {
  return std::all_of(values.begin(), values.end(), [value](float x) { return x == value; });
}
auto no_done = [](const Frame& frame) { return frame.header.type != FrameType::done; };

class Members : public ::testing::Test {
 protected:
  explicit Members(std::size_t peers = 3) : net(peers) {}

  // All submit the same all-reduce; peer p puts in 2^p.
  void submit_all(const std::vector<std::size_t>& peers, Channel channel = 0) {
    for (std::size_t peer : peers) submit_one(peer, channel);
  }
  void submit_one(std::size_t peer, Channel channel = 0) {
    auto& mine = buffers[peer];
    mine.push_back(std::make_unique<Buffers>(numbers(40, static_cast<float>(1u << peer))));
    ops[peer].push_back(net.submit(peer, net.all_reduce(*mine.back(), channel)));
  }
  void fence(std::size_t peer, Change kind) {
    net.core(peer).fence(++attempt, kind, 0);
    net.collect();
    ASSERT_EQ(net.fenced(peer).back().attempt, attempt);
  }
  void install(std::size_t peer, Epoch epoch, const std::vector<std::size_t>& peers,
               const Starts& starts, Change kind) {
    net.core(peer).install(Loopback::view_of(epoch, peers), starts, kind, 0);
    net.collect();
  }
  Counters answered(std::size_t peer, Channel channel = 0) {
    return net.fenced(peer).back().progress.at(channel);
  }
  bool ended(std::size_t peer, std::size_t index, Code code) {
    return net.ended_with(peer, ops[peer].at(index), code);
  }
  Epoch epoch_of(std::size_t peer, std::size_t index) {
    return net.completed(peer, ops[peer].at(index))->epoch;
  }

  Loopback net;
  std::uint64_t attempt = 0;
  std::map<std::size_t, std::vector<std::unique_ptr<Buffers>>> buffers;
  std::map<std::size_t, std::vector<OpId>> ops;
};

class Three : public Members {
 protected:
  void SetUp() override { net.install_all(); }
};

TEST_F(Three, DrainFencePledgesToStartNothing) {
  submit_all({0, 1});
  fence(0, Change::drain);
  EXPECT_EQ(answered(0), (Counters{1, 0, 0}));
  submit_one(0);
  submit_all({2});
  net.run();
  EXPECT_TRUE(ended(0, 0, Code::ok));  // what was started goes on
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 1}));
}

TEST_F(Three, DrainFinishesWhatAnybodyHasStartedThenSwitches) {
  submit_one(0);
  for (std::size_t peer : {0u, 1u, 2u}) fence(peer, Change::drain);
  EXPECT_EQ(answered(0).started, 1u);
  EXPECT_EQ(net.fenced(1).back().progress.count(0), 0u);
  for (std::size_t peer : {0u, 1u, 2u}) install(peer, 2, {0, 1, 2}, {{0, 1}}, Change::drain);
  EXPECT_EQ(net.core(1).view().epoch, 1u);
  submit_all({1, 2});  // falls due after the fence, and belongs to the old view
  submit_all({0, 1, 2});
  net.run();
  for (std::size_t peer : {0u, 1u, 2u}) {
    EXPECT_TRUE(ended(peer, 0, Code::ok));
    EXPECT_EQ(epoch_of(peer, 0), 1u);
    EXPECT_TRUE(ended(peer, 1, Code::ok));
    EXPECT_EQ(epoch_of(peer, 1), 2u);
    EXPECT_EQ(net.installed(peer).back().epoch, 2u);
    EXPECT_TRUE(all(buffers[peer][1]->out, 7));
  }
}

TEST_F(Three, AbortFenceFreezesTheEpoch) {
  submit_all({0, 1, 2});
  fence(0, Change::abort);
  EXPECT_EQ(answered(0), (Counters{1, 0, 0}));
  net.run();
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 0, 0}));
  EXPECT_GT(net.core(0).tally().stale_frames, 0u);
  EXPECT_FALSE(net.completed(0, ops[0][0]));
}

TEST_F(Three, AbortRunsAgainWhatASurvivorHasNotDone) {
  submit_all({0, 1, 2});
  net.run_only([](const Frame& frame) { return frame.from != 2 || frame.to == 0; });
  for (std::size_t peer : {0u, 1u}) fence(peer, Change::abort);
  EXPECT_EQ(answered(1).done, 0u);
  net.under_way.clear();
  for (std::size_t peer : {0u, 1u}) install(peer, 2, {0, 1}, {{0, 0}}, Change::abort);
  net.run();
  for (std::size_t peer : {0u, 1u}) {
    EXPECT_TRUE(ended(peer, 0, Code::ok));
    EXPECT_EQ(epoch_of(peer, 0), 2u);
    EXPECT_TRUE(all(buffers[peer][0]->out, 3));  // of the two that are left
    EXPECT_EQ(net.core(peer).tally().ops_rerun, 1u);
  }
}

TEST_F(Three, AbortCommitsWhatAllSurvivorsHaveDone) {
  submit_all({0, 1, 2});
  net.run_only(no_done);
  for (std::size_t peer : {0u, 1u}) fence(peer, Change::abort);
  EXPECT_EQ(answered(0), (Counters{1, 1, 0}));
  net.under_way.clear();
  for (std::size_t peer : {0u, 1u}) install(peer, 2, {0, 1}, {{0, 1}}, Change::abort);
  for (std::size_t peer : {0u, 1u}) {
    EXPECT_TRUE(ended(peer, 0, Code::ok));
    EXPECT_EQ(epoch_of(peer, 0), 1u);
    EXPECT_TRUE(all(buffers[peer][0]->out, 7));  // the lost one's numbers are in
  }
}

TEST_F(Three, FramesOfTheOldEpochAreDropped) {
  submit_all({0, 1, 2});
  const std::vector<Frame> old = net.under_way;
  for (std::size_t peer : {0u, 1u}) {
    fence(peer, Change::abort);
    install(peer, 2, {0, 1}, {{0, 0}}, Change::abort);
  }
  for (const Frame& frame : old) {
    if (frame.to != 2) net.deliver(frame);
  }
  EXPECT_GT(net.core(0).tally().stale_frames, 0u);
  net.run();
  EXPECT_TRUE(all(buffers[0][0]->out, 3));
  EXPECT_TRUE(all(buffers[1][0]->out, 3));
}

TEST_F(Three, FramesOfANewerEpochWaitForItsInstall) {
  submit_all({0, 1, 2});
  net.under_way.clear();
  for (std::size_t peer : {0u, 1u, 2u}) fence(peer, Change::abort);
  for (std::size_t peer : {0u, 1u}) install(peer, 2, {0, 1, 2}, {{0, 0}}, Change::abort);
  net.run();
  EXPECT_GT(net.core(2).tally().early_frames, 0u);
  EXPECT_EQ(net.core(2).tally().stale_frames, 0u);
  install(2, 2, {0, 1, 2}, {{0, 0}}, Change::abort);
  net.run();
  for (std::size_t peer : {0u, 1u, 2u}) EXPECT_TRUE(all(buffers[peer][0]->out, 7));
}

TEST_F(Three, AFrameHalfReceivedDoesNotReachTheRerunsOutput) {
  Loopback two(2);
  two.install_all();
  Buffers zero = numbers(40, 1);
  Buffers one = numbers(40, 2);
  const OpId op = two.submit(0, two.broadcast(zero, 1));
  two.submit(1, two.broadcast(one, 1));
  const auto data = std::find_if(two.under_way.begin(), two.under_way.end(), [](const Frame& frame) {
    return frame.header.type == FrameType::data;
  });
  ASSERT_NE(data, two.under_way.end());
  OpId owner = 0;
  ASSERT_FALSE(two.core(0).place(peer_id(1), data->header, owner).empty());
  EXPECT_EQ(owner, op);
  two.core(0).fence(1, Change::abort, 0);
  EXPECT_TRUE(two.core(0).place(peer_id(1), data->header, owner).empty());
  two.core(0).install(Loopback::view_of(2, {0, 1}), {{0, 0}}, Change::abort, 0);
  Action action;
  bool released = false;
  while (two.core(0).next(action)) {
    const auto* release = std::get_if<Release>(&action);
    released |= release != nullptr && release->op == op;
    const auto* send = std::get_if<Send>(&action);
    EXPECT_TRUE(send == nullptr || released) << "a rerun begins before the buffers are released";
  }
  EXPECT_TRUE(released);
}

// Peer 0 holds the result and has said so; peer 1's deadline has failed the op. If both counted as
// done, the new view would commit the op at 0 and fail it at 1.
TEST_F(Three, AFailedOpIsNotTakenForADoneOne) {
  submit_all({0, 2});
  auto late = numbers(40, 2);
  OpRequest request = net.all_reduce(late);
  request.deadline = 50;
  const OpId op = net.submit(1, request);
  net.run_only([](const Frame& frame) {
    return no_done(frame) && !(frame.to == 1 && frame.header.type == FrameType::start);
  });
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 0}));
  net.core(1).tick(50);
  net.collect();
  EXPECT_TRUE(net.ended_with(1, op, Code::deadline));
  for (std::size_t peer : {0u, 1u}) fence(peer, Change::abort);
  EXPECT_EQ(answered(0).done, 1u);
  EXPECT_EQ(answered(1).done, 0u);
  net.under_way.clear();
  for (std::size_t peer : {0u, 1u}) install(peer, 2, {0, 1}, {{0, 0}}, Change::abort);
  net.run();
  EXPECT_TRUE(ended(0, 0, Code::deadline));
}

// Peer 0 has committed the failure and goes on; peer 1 has not heard all of it when the view ends.
TEST_F(Three, ACommittedFailureIsSaidAgainWhenItHasToBe) {
  submit_all({0, 1, 2});
  net.core(2).abort(ops[2][0], 0);
  net.collect();
  net.run_only([](const Frame& frame) {
    return frame.to != 1 || frame.from == 2 || frame.header.type != FrameType::done;
  });
  EXPECT_TRUE(ended(0, 0, Code::aborted));
  EXPECT_FALSE(net.completed(1, ops[1][0]));
  submit_one(0);  // and the next one is under way
  for (std::size_t peer : {0u, 1u}) fence(peer, Change::abort);
  EXPECT_EQ(answered(0), (Counters{2, 1, 1}));
  EXPECT_EQ(answered(1), (Counters{1, 0, 0}));
  net.under_way.clear();
  for (std::size_t peer : {0u, 1u}) install(peer, 2, {0, 1}, {{0, 0}}, Change::abort);
  submit_one(1);
  net.run();
  EXPECT_TRUE(ended(1, 0, Code::aborted));
  for (std::size_t peer : {0u, 1u}) {
    EXPECT_TRUE(ended(peer, 1, Code::ok));
    EXPECT_TRUE(all(buffers[peer][1]->out, 3));
    EXPECT_EQ(net.core(peer).progress()[0], (Counters{2, 2, 2}));
  }
}

TEST_F(Three, AbortSupersedesADrain) {
  submit_one(0);
  for (std::size_t peer : {0u, 1u, 2u}) fence(peer, Change::drain);
  for (std::size_t peer : {0u, 1u}) install(peer, 2, {0, 1, 2}, {{0, 1}}, Change::drain);
  submit_one(1);
  for (std::size_t peer : {0u, 1u}) fence(peer, Change::abort);
  EXPECT_EQ(net.fenced(0).back().epoch, 1u);
  net.under_way.clear();
  for (std::size_t peer : {0u, 1u}) install(peer, 3, {0, 1}, {{0, 0}}, Change::abort);
  net.run();
  EXPECT_TRUE(ended(0, 0, Code::ok));
  EXPECT_TRUE(all(buffers[1][0]->out, 3));
  for (const Installed& each : net.installed(0)) EXPECT_NE(each.epoch, 2u);
}

TEST_F(Three, AnEpochThatIsNotNewerIsIgnored) {
  install(0, 1, {0}, {}, Change::abort);
  EXPECT_EQ(net.core(0).view().size(), 3u);
  EXPECT_EQ(net.installed(0).size(), 1u);
}

TEST_F(Three, ALeaverFinishesAndIsInNoView) {
  submit_all({0, 1, 2});
  for (std::size_t peer : {0u, 1u, 2u}) fence(peer, Change::drain);
  for (std::size_t peer : {0u, 1u, 2u}) install(peer, 2, {0, 1}, {{0, 1}}, Change::drain);
  submit_one(2);
  EXPECT_EQ(net.installed(2).size(), 1u);
  net.run();
  EXPECT_TRUE(ended(2, 0, Code::ok));
  EXPECT_EQ(net.installed(2).back().epoch, 2u);
  EXPECT_FALSE(net.installed(2).back().member);
  EXPECT_FALSE(net.completed(2, ops[2][1]));
  net.core(2).close();
  net.collect();
  EXPECT_TRUE(ended(2, 1, Code::closed));
  submit_all({0, 1});
  net.run();
  EXPECT_TRUE(all(buffers[0][1]->out, 3));
}

TEST_F(Three, OneThatIsPutOutWaitsForItsEnd) {
  submit_all({0, 1, 2});
  fence(2, Change::abort);
  install(2, 2, {0, 1}, {{0, 1}}, Change::abort);  // the others had done it, this one had not
  EXPECT_FALSE(net.installed(2).back().member);
  EXPECT_FALSE(net.completed(2, ops[2][0]));
  net.core(2).close();
  net.collect();
  EXPECT_TRUE(ended(2, 0, Code::closed));
}

TEST_F(Three, ADeadlineInAFrozenEpochLetsTheCallerGo) {
  auto mine = numbers(40, 1);
  OpRequest request = net.all_reduce(mine);
  request.deadline = 50;
  const OpId op = net.submit(0, request);
  submit_all({1, 2});
  fence(0, Change::abort);
  net.core(0).tick(50);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, op, Code::deadline));
  mine = {};
  net.under_way.clear();
  for (std::size_t peer : {1u, 2u}) fence(peer, Change::abort);
  for (std::size_t peer : {0u, 1u, 2u}) install(peer, 2, {0, 1, 2}, {{0, 0}}, Change::abort);
  net.run();
  EXPECT_TRUE(ended(1, 0, Code::deadline));
  EXPECT_TRUE(ended(2, 0, Code::deadline));
}

TEST_F(Three, ADeadlineThatPassedBeforeTheRerunCountsThere) {
  submit_one(1);
  auto mine = numbers(40, 1);
  OpRequest request = net.all_reduce(mine);
  request.deadline = 50;
  const OpId op = net.submit(0, request);
  net.run_only([](const Frame& frame) { return frame.from != 2; });
  submit_all({2});
  net.run_only(no_done);
  EXPECT_EQ(net.core(0).progress()[0].done, 1u);
  net.core(0).tick(50);  // done: no effect
  fence(0, Change::abort);
  install(0, 2, {0, 1}, {{0, 0}}, Change::abort);
  net.core(0).tick(60);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, op, Code::deadline));
}

TEST_F(Three, AWrongVerdictFailsTheOpAndNotTheProcess) {
  submit_all({0, 1, 2});
  fence(0, Change::abort);
  install(0, 2, {0, 1}, {{0, 1}}, Change::abort);  // though 0 has not done it
  EXPECT_TRUE(ended(0, 0, Code::aborted));
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 1}));
  install(0, 3, {0}, {{0, 17}, {9, 4}}, Change::abort);
  EXPECT_EQ(net.core(0).progress()[0], (Counters{17, 17, 17}));
  EXPECT_EQ(net.core(0).progress()[9], (Counters{4, 4, 4}));
}

TEST_F(Three, AnExchangeEndsWithItsView) {
  auto one = numbers(8, 1);
  const OpId op = net.submit(0, net.exchange(one, 1, 3));
  fence(0, Change::abort);
  EXPECT_TRUE(net.ended_with(0, op, Code::peer_lost));
  auto two = numbers(8, 1);
  EXPECT_TRUE(net.ended_with(0, net.submit(0, net.exchange(two, 1, 4)), Code::peer_lost));
}

class Joining : public Members {
 protected:
  void SetUp() override {
    for (std::size_t peer : {0u, 1u}) install(peer, 1, {0, 1}, {}, Change::drain);
    for (int i = 0; i < 3; ++i) submit_all({0, 1}, 5);
    net.run();
  }
};

TEST_F(Joining, BeginsAtStart) {
  for (std::size_t peer : {0u, 1u}) fence(peer, Change::drain);
  EXPECT_EQ(answered(0, 5), (Counters{3, 3, 3}));
  submit_one(2, 5);  // waits for its first view
  EXPECT_EQ(net.core(2).progress()[5], (Counters{0, 0, 0}));
  for (std::size_t peer : {2u, 0u, 1u}) install(peer, 2, {0, 1, 2}, {{5, 3}}, Change::drain);
  EXPECT_EQ(net.core(2).progress()[5], (Counters{4, 3, 3}));
  submit_all({0, 1}, 5);
  net.run();
  EXPECT_TRUE(ended(2, 0, Code::ok));
  EXPECT_EQ(net.completed(2, ops[2][0])->sequence, 3u);
  EXPECT_TRUE(all(buffers[2][0]->out, 7));
}

TEST_F(Joining, SwitchesAtOnceWhileTheMembersStillFinish) {
  submit_one(0, 5);
  for (std::size_t peer : {0u, 1u}) fence(peer, Change::drain);
  EXPECT_EQ(answered(0, 5).started, 4u);
  for (std::size_t peer : {2u, 0u, 1u}) install(peer, 2, {0, 1, 2}, {{5, 4}}, Change::drain);
  EXPECT_EQ(net.core(2).view().epoch, 2u);
  EXPECT_EQ(net.core(0).view().epoch, 1u);
  submit_one(2, 5);
  net.run();  // its frames are early at the members
  submit_one(1, 5);
  submit_all({0, 1}, 5);
  net.run();
  EXPECT_TRUE(all(buffers[0][3]->out, 3));
  EXPECT_TRUE(all(buffers[0][4]->out, 7));
  EXPECT_TRUE(all(buffers[2][0]->out, 7));
}

}  // namespace
}  // namespace reef::testing
