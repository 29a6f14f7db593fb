// The rules of one op inside one view: order, the eager allowance, commit, what may be submitted.

#include "op_samples.h"

namespace reef::testing {
namespace {

std::size_t count_frames(const Loopback& net, FrameType type, std::size_t to) {
  return static_cast<std::size_t>(
      std::count_if(net.under_way.begin(), net.under_way.end(), [&](const Frame& frame) {
        return frame.header.type == type && frame.to == to;
      }));
}

TEST(Commit, NeedsDoneFromAllOthers) {
  Loopback net(3);
  net.install_all();
  std::vector<Buffers> buffers(3, numbers(10, 1));
  std::vector<OpId> ops;
  for (std::size_t peer = 0; peer < 3; ++peer) {
    ops.push_back(net.submit(peer, net.all_reduce(buffers[peer])));
  }
  net.run_only(no_done);
  for (std::size_t peer = 0; peer < 3; ++peer) {
    EXPECT_TRUE(all(buffers[peer].out, 3));
    EXPECT_FALSE(net.completed(peer, ops[peer]));
    EXPECT_EQ(net.core(peer).progress()[0], (Counters{1, 1, 0}));
  }
  net.run_only([](const Frame& frame) { return frame.to == 0 && frame.from == 1; });
  EXPECT_FALSE(net.completed(0, ops[0]));
  net.run_only([](const Frame& frame) { return frame.to == 0; });
  EXPECT_TRUE(net.ended_with(0, ops[0], Code::ok));
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 1}));
  EXPECT_FALSE(net.completed(1, ops[1]));
  net.run();
  EXPECT_TRUE(net.ended_with(1, ops[1], Code::ok));
}

TEST(Commit, NamesTheViewAndTheNumber) {
  Loopback net(2);
  net.install_all(7);
  for (Sequence sequence = 0; sequence < 3; ++sequence) {
    const OpId one = net.submit(0, net.barrier(4));
    net.submit(1, net.barrier(4));
    net.run();
    EXPECT_EQ(net.completed(0, one)->epoch, 7u);
    EXPECT_EQ(net.completed(0, one)->sequence, sequence);
  }
}

TEST(Order, TheNextOpStartsAfterTheCommit) {
  Loopback net(2);
  net.install_all();
  for (std::size_t peer = 0; peer < 2; ++peer) {
    net.submit(peer, net.barrier());
    net.submit(peer, net.barrier());
  }
  EXPECT_EQ(count_frames(net, FrameType::start, 1), 1u);
  net.run_only(no_done);
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 0}));
  net.run_only([](const Frame& frame) { return frame.to == 0; });
  EXPECT_EQ(net.core(0).progress()[0], (Counters{2, 1, 1}));
  net.run();
  EXPECT_EQ(net.core(0).progress()[0], (Counters{2, 2, 2}));
}

TEST(Order, ChannelsDoNotWaitForOneAnother) {
  Loopback net(2);
  net.install_all();
  net.submit(0, net.barrier(1));
  net.submit(0, net.barrier(2));
  const OpId other = net.submit(1, net.barrier(2));
  net.run();
  EXPECT_TRUE(net.ended_with(1, other, Code::ok));
  EXPECT_EQ(net.core(0).progress()[1], (Counters{1, 0, 0}));
}

TEST(Eager, DataBeyondTheAllowanceWaitsForStart) {
  CoreOptions options;
  options.chunk_bytes = 100;
  options.eager_bytes = 350;
  Loopback net(2, options);
  net.install_all();
  Buffers one = numbers(500, 1);
  Buffers two = numbers(500, 2);
  net.submit(0, net.all_reduce(one, 0, Plan::ring));
  EXPECT_EQ(count_frames(net, FrameType::data, 1), 3u);
  net.run();
  EXPECT_EQ(net.core(1).tally().early_frames, 4u);
  const OpId op = net.submit(1, net.all_reduce(two, 0, Plan::ring));
  net.run();
  EXPECT_TRUE(net.ended_with(1, op, Code::ok));
  EXPECT_TRUE(all(one.out, 3));
  EXPECT_TRUE(all(two.out, 3));
}

TEST(Eager, AMemberThatIsLateOnAllChannelsIsNotOverrun) {
  CoreOptions options;
  Loopback net(2, options);
  net.install_all();
  const std::size_t channels = 300;  // 75 MiB of allowances, more than a member keeps for another
  std::vector<Buffers> ones(channels);
  std::vector<Buffers> twos(channels);
  for (Channel channel = 0; channel < channels; ++channel) {
    ones[channel] = numbers(2 * 64 * 1'024, 1);
    net.submit(0, net.all_reduce(ones[channel], channel, Plan::ring));
  }
  net.run();
  for (Channel channel = 0; channel < channels; ++channel) {
    twos[channel] = numbers(2 * 64 * 1'024, 2);
    net.submit(1, net.all_reduce(twos[channel], channel, Plan::ring));
    net.run();
  }
  EXPECT_EQ(net.core(0).tally().ops_committed, channels);
  EXPECT_TRUE(net.blamed().empty());
}

TEST(Notices, RepeatedAndLateOnesAreHarmless) {
  Loopback net(2);
  net.install_all();
  const OpId op = net.submit(0, net.barrier());
  net.submit(1, net.barrier());
  const std::vector<Frame> starts = net.under_way;
  net.run_only(no_done);
  const std::vector<Frame> dones = net.under_way;
  for (const Frame& frame : starts) net.deliver(frame);
  net.run();
  for (const Frame& frame : starts) net.deliver(frame);
  for (const Frame& frame : dones) net.deliver(frame);
  EXPECT_TRUE(net.ended_with(0, op, Code::ok));
  EXPECT_EQ(net.core(0).progress()[0], (Counters{1, 1, 1}));
}

TEST(Alone, EverythingCompletesAtOnce) {
  Loopback net(1);
  net.install_all();
  Buffers buffers = numbers(1'000, 4);
  for (const Plan plan : {Plan::none, Plan::ring, Plan::direct}) {
    buffers.out.assign(1'000, 0);
    EXPECT_TRUE(net.ended_with(0, net.submit(0, net.all_reduce(buffers, 0, plan)), Code::ok));
    EXPECT_TRUE(all(buffers.out, 4));
  }
  EXPECT_TRUE(net.ended_with(0, net.submit(0, net.broadcast(buffers, 0)), Code::ok));
  EXPECT_TRUE(net.ended_with(0, net.submit(0, net.barrier()), Code::ok));
  EXPECT_TRUE(net.ended_with(0, net.submit(0, net.broadcast(buffers, 1)), Code::peer_lost));
  EXPECT_TRUE(net.under_way.empty());
}

TEST(Submit, RefusesWhatCannotRun) {
  Loopback net(2);
  net.install_all();
  Buffers buffers = numbers(8, 1);
  const OpRequest good = net.all_reduce(buffers);
  const auto refused = [&](auto change) {
    OpRequest request = good;
    change(request);
    const Status status = net.core(0).submit(request, 0);
    return !status.ok() && status.error().code == Code::invalid;
  };
  EXPECT_TRUE(refused([](OpRequest& r) { r.id = 0; }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.count = 7; }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.in = r.in.first(28); }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.out = r.out.first(28); }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.in = r.out; }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.chunk_bytes = 6; }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.chunk_bytes = limits::kMaxPayload + 4; }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.dtype = static_cast<DType>(9); }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.kind = static_cast<OpKind>(10); }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.plan = static_cast<Plan>(6); }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.channel = limits::kMaxChannels; }));
  EXPECT_TRUE(refused([](OpRequest& r) { r.count = 1ull << 62; }));
  EXPECT_TRUE(refused([](OpRequest& r) {
    r.kind = OpKind::exchange;
    r.partner = peer_id(0);
  }));
  std::vector<std::byte> crooked(33);
  EXPECT_TRUE(refused([&](OpRequest& r) { r.out = std::span(crooked).subspan(1); }));
  // Half over one another.
  std::vector<float> shared(12);
  EXPECT_TRUE(refused([&](OpRequest& r) {
    r.in = std::as_bytes(std::span(shared).first(8));
    r.out = std::as_writable_bytes(std::span(shared).last(8));
  }));
  EXPECT_TRUE(net.core(0).submit(good, 0).ok());
  EXPECT_FALSE(net.core(0).submit(good, 0).ok()) << "the same id twice";
  EXPECT_TRUE(net.core(0).progress().contains(0));
}

TEST(Submit, BoundsTheNumberOfChannels) {
  Loopback net(1);
  net.install_all();
  for (Channel channel = 0; channel < limits::kMaxChannels; ++channel) {
    net.submit(0, net.barrier(channel));
  }
  EXPECT_FALSE(net.core(0).submit(net.barrier(limits::kMaxChannels), 0).ok());
  EXPECT_TRUE(net.core(0).submit(net.barrier(7), 0).ok());
}

TEST(Close, CompletesAllThatWaits) {
  Loopback net(2);
  net.install_all();
  Buffers buffers = numbers(8, 1);
  Buffers pair = numbers(8, 1);
  std::vector<OpId> ops;
  ops.push_back(net.submit(0, net.all_reduce(buffers)));
  ops.push_back(net.submit(0, net.barrier()));
  ops.push_back(net.submit(0, net.barrier(3)));
  ops.push_back(net.submit(0, net.exchange(pair, 1, 1)));
  net.core(0).close();
  net.collect();
  for (OpId op : ops) EXPECT_TRUE(net.ended_with(0, op, Code::closed));
  EXPECT_FALSE(net.core(0).submit(net.barrier(), 0).ok());
  EXPECT_EQ(net.core(0).tick(kSecond), kNever);
}

}  // namespace
}  // namespace reef::testing
