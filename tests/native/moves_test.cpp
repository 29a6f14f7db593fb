// All-gather, all-to-all, send and receive; ops bound to a view; priorities; lazily made data.

#include <random>

#include "loopback.h"

namespace reef::testing {
namespace {

std::vector<std::int32_t> numbers_of(std::size_t peer, std::size_t count) {
  std::vector<std::int32_t> numbers(count);
  for (std::size_t i = 0; i < count; ++i) numbers[i] = static_cast<std::int32_t>(1'000 * peer + i);
  return numbers;
}

struct Ints {
  std::vector<std::int32_t> in;
  std::vector<std::int32_t> out;
};

OpRequest request_of(OpId id, OpKind kind, Ints& buffers, std::uint64_t count) {
  OpRequest request;
  request.id = id;
  request.kind = kind;
  request.dtype = DType::i32;
  request.count = count;
  request.chunk_bytes = 32;
  request.in = std::as_bytes(std::span(buffers.in));
  request.out = std::as_writable_bytes(std::span(buffers.out));
  return request;
}

TEST(AllGather, PutsAllOneBehindTheOther) {
  std::uint64_t seed = 1;
  for (const std::size_t peers : {1, 2, 3, 5}) {
    for (const std::size_t count : {0, 1, 7, 100}) {
      for (const bool varied : {false, true}) {
        CoreOptions options;
        options.eager_bytes = seed % 2 == 0 ? 0 : 200;
        Loopback net(peers, options);
        net.shuffle(++seed);
        net.install_all();
        std::vector<std::uint64_t> counts;
        std::vector<std::int32_t> wanted;
        for (std::size_t peer = 0; peer < peers; ++peer) {
          counts.push_back(varied ? count * peer % 60 : count);
          const std::vector<std::int32_t> share = numbers_of(peer, counts.back());
          wanted.insert(wanted.end(), share.begin(), share.end());
        }
        std::vector<Ints> buffers(peers);
        for (std::size_t peer = 0; peer < peers; ++peer) {
          buffers[peer] = {numbers_of(peer, counts[peer]),
                           std::vector<std::int32_t>(wanted.size(), -1)};
          OpRequest request =
              request_of(peer + 1, OpKind::all_gather, buffers[peer], varied ? 0 : count);
          if (varied) request.counts = counts;
          net.submit(peer, request);
        }
        net.run();
        for (std::size_t peer = 0; peer < peers; ++peer) {
          ASSERT_TRUE(net.ended_with(peer, peer + 1, Code::ok)) << peers << " " << count;
          EXPECT_EQ(buffers[peer].out, wanted);
        }
      }
    }
  }
}

// All must cut it into chunks of the same size, though each has another share.
TEST(AllGather, OfVeryDifferentShares) {
  Loopback net(3);
  net.install_all();
  const std::vector<std::uint64_t> counts = {30'000, 0, 5};
  std::vector<Ints> buffers(3);
  for (std::size_t peer = 0; peer < 3; ++peer) {
    buffers[peer] = {numbers_of(peer, counts[peer]), std::vector<std::int32_t>(30'005, -1)};
    OpRequest request =
        request_of(peer + 1, OpKind::all_gather, buffers[peer], counts[peer]);
    request.counts = counts;
    net.submit(peer, request);
  }
  net.run();
  for (std::size_t peer = 0; peer < 3; ++peer) {
    ASSERT_TRUE(net.ended_with(peer, peer + 1, Code::ok));
    EXPECT_EQ(buffers[peer].out[29'999], buffers[0].in.back());
    EXPECT_EQ(buffers[peer].out.back(), buffers[2].in.back());
  }
}

TEST(AllGather, OfOtherCountsIsAMismatch) {
  Loopback net(2);
  net.install_all();
  std::vector<Ints> buffers(2);
  const std::vector<std::vector<std::uint64_t>> counts = {{2, 3}, {1, 4}};
  for (std::size_t peer = 0; peer < 2; ++peer) {
    buffers[peer] = {numbers_of(peer, counts[peer][peer]), std::vector<std::int32_t>(5)};
    OpRequest request = request_of(peer + 1, OpKind::all_gather, buffers[peer], 0);
    request.counts = counts[peer];
    net.submit(peer, request);
  }
  net.run();
  EXPECT_TRUE(net.ended_with(0, 1, Code::mismatch));
  EXPECT_TRUE(net.ended_with(1, 2, Code::mismatch));
}

TEST(AllToAll, GivesEachItsBlock) {
  for (const std::size_t peers : {1, 2, 3, 6}) {
    for (const std::size_t count : {0, 1, 9, 33}) {
      Loopback net(peers);
      net.shuffle(peers * 100 + count);
      net.install_all();
      std::vector<Ints> buffers(peers);
      for (std::size_t peer = 0; peer < peers; ++peer) {
        buffers[peer] = {numbers_of(peer, peers * count),
                         std::vector<std::int32_t>(peers * count, -1)};
        net.submit(peer, request_of(peer + 1, OpKind::all_to_all, buffers[peer], count));
      }
      net.run();
      for (std::size_t peer = 0; peer < peers; ++peer) {
        ASSERT_TRUE(net.ended_with(peer, peer + 1, Code::ok));
        for (std::size_t from = 0; from < peers; ++from) {
          for (std::size_t i = 0; i < count; ++i) {
            EXPECT_EQ(buffers[peer].out[from * count + i],
                      static_cast<std::int32_t>(1'000 * from + peer * count + i));
          }
        }
      }
    }
  }
}

TEST(SendRecv, GoesBothWaysWithOneTag) {
  for (const bool early : {false, true}) {
    Loopback net(3);
    net.shuffle(3);
    net.install_all();
    std::vector<Ints> buffers(4);
    const auto submit = [&](std::size_t peer, std::size_t partner, OpKind kind, std::size_t which) {
      buffers[which] = kind == OpKind::send ? Ints{numbers_of(peer, 50), {}}
                                            : Ints{{}, std::vector<std::int32_t>(50, -1)};
      OpRequest request = request_of(which + 1, kind, buffers[which], 50);
      request.partner = peer_id(partner);
      request.tag = 9;
      net.submit(peer, request);
    };
    submit(0, 2, OpKind::send, 0);
    submit(2, 0, OpKind::send, 1);
    if (early) net.run();
    submit(0, 2, OpKind::recv, 2);
    submit(2, 0, OpKind::recv, 3);
    net.run();
    for (std::size_t which = 0; which < 4; ++which) {
      EXPECT_TRUE(net.ended_with(which % 2 == 0 ? 0 : 2, which + 1, Code::ok)) << which;
    }
    EXPECT_EQ(buffers[2].out, numbers_of(2, 50));
    EXPECT_EQ(buffers[3].out, numbers_of(0, 50));
  }
}

TEST(SendRecv, OfDifferentSizesFailsOnBoth) {
  Loopback net(2);
  net.install_all();
  std::vector<Ints> buffers = {{numbers_of(0, 5), {}}, {{}, std::vector<std::int32_t>(6)}};
  for (std::size_t peer = 0; peer < 2; ++peer) {
    OpRequest request = request_of(peer + 1, peer == 0 ? OpKind::send : OpKind::recv,
                                   buffers[peer], 5 + peer);
    request.partner = peer_id(1 - peer);
    net.submit(peer, request);
  }
  net.run();
  EXPECT_TRUE(net.ended_with(0, 1, Code::mismatch));
  EXPECT_TRUE(net.ended_with(1, 2, Code::mismatch));
}

TEST(BoundToAView, GoesOnInANewViewOfTheSameMembers) {
  Loopback net(2);
  net.install_all(1);
  std::vector<Ints> buffers(2);
  for (std::size_t peer = 0; peer < 2; ++peer) {
    net.core(peer).install(Loopback::view_of(2, {0, 1}), {}, Change::abort, 0);
    net.core(peer).install(Loopback::view_of(3, {0, 1}), {}, Change::abort, 0);
  }
  net.collect();
  for (std::size_t peer = 0; peer < 2; ++peer) {
    buffers[peer] = {numbers_of(peer, 80), std::vector<std::int32_t>(80)};
    OpRequest request = request_of(peer + 1, OpKind::all_to_all, buffers[peer], 40);
    request.epoch = 1 + peer;
    net.submit(peer, request);
  }
  net.run();
  EXPECT_TRUE(net.ended_with(0, 1, Code::ok));
  EXPECT_TRUE(net.ended_with(1, 2, Code::ok));
  // An epoch that nobody has seen yet is not that of these members.
  for (std::size_t peer = 0; peer < 2; ++peer) {
    OpRequest request = request_of(peer + 3, OpKind::all_to_all, buffers[peer], 40);
    request.epoch = 4;
    net.submit(peer, request);
  }
  net.run();
  EXPECT_TRUE(net.ended_with(0, 3, Code::view_changed));
}

// One member made the op for the view before, the other for this one, and so of another size.
TEST(BoundToAView, IsNoMismatchWhenOneMemberWasEarly) {
  for (const bool early_first : {true, false}) {
    Loopback net(3);
    net.install_all(1);
    for (std::size_t peer = 0; peer < 2; ++peer) {
      net.core(peer).install(Loopback::view_of(2, {0, 1}), {}, Change::abort, 0);
    }
    net.collect();
    std::vector<Ints> buffers(2);
    for (std::size_t turn = 0; turn < 2; ++turn) {
      const std::size_t peer = early_first ? turn : 1 - turn;
      const std::size_t count = peer == 0 ? 20 : 30;
      buffers[peer] = {numbers_of(peer, 2 * count), std::vector<std::int32_t>(2 * count)};
      OpRequest request = request_of(peer + 1, OpKind::all_to_all, buffers[peer], count);
      request.epoch = peer == 0 ? 1 : 2;
      net.submit(peer, request);
    }
    net.run();
    EXPECT_TRUE(net.ended_with(0, 1, Code::view_changed));
    EXPECT_TRUE(net.ended_with(1, 2, Code::view_changed));
  }
}

// Sizes made for three members meet a view of two: all hear of it, and the channel goes on.
TEST(BoundToAView, FailsOnAllWhenTheViewHasChanged) {
  Loopback net(3);
  net.install_all(1);
  std::vector<Ints> buffers(3);
  for (std::size_t peer = 0; peer < 3; ++peer) {
    buffers[peer] = {numbers_of(peer, 3 * 40), std::vector<std::int32_t>(3 * 40, -1)};
    OpRequest request = request_of(peer + 1, OpKind::all_to_all, buffers[peer], 40);
    request.epoch = 1;
    if (peer != 2) net.submit(peer, request);
  }
  net.run_only([](const Frame& frame) { return frame.from != 2; });
  for (std::size_t peer = 0; peer < 2; ++peer) {
    net.core(peer).link_down(peer_id(2), 0);
    net.core(peer).fence(1, Change::abort, 0);
    net.core(peer).install(Loopback::view_of(2, {0, 1}), {{0, 0}}, Change::abort, 0);
  }
  net.collect();
  net.run();
  EXPECT_TRUE(net.ended_with(0, 1, Code::view_changed));
  EXPECT_TRUE(net.ended_with(1, 2, Code::view_changed));
  EXPECT_EQ(buffers[0].in, numbers_of(0, 120));
  for (std::size_t peer = 0; peer < 2; ++peer) {
    OpRequest request = net.barrier();
    request.id = 90 + peer;
    net.submit(peer, request);
  }
  net.run();
  EXPECT_TRUE(net.ended_with(0, 90, Code::ok));
}

// The most urgent op's data goes first, also past one that is under way.
TEST(Pull, ServesTheMostUrgentOpFirst) {
  Loopback net(2);
  net.pulls = false;
  net.install_all();
  std::vector<Buffers> buffers(6);
  for (Buffers& each : buffers) each = {std::vector<float>(4'096, 1), std::vector<float>(4'096, 0)};
  const auto submit = [&](Channel channel, std::int32_t priority) {
    for (std::size_t peer = 0; peer < 2; ++peer) {
      OpRequest request = net.all_reduce(buffers[2 * channel + peer], channel, Plan::direct);
      request.priority = priority;
      request.chunk_bytes = 1'024;
      net.submit(peer, request);
    }
    net.run();  // STARTs
  };
  submit(0, 0);
  Send frame;
  ASSERT_TRUE(net.core(0).pull(peer_id(1), frame));
  EXPECT_EQ(frame.header.channel, 0u);
  submit(1, 5);
  submit(2, 0);
  std::vector<Channel> order;
  while (net.core(0).pull(peer_id(1), frame)) {
    if (order.empty() || order.back() != frame.header.channel) order.push_back(frame.header.channel);
  }
  EXPECT_EQ(order, (std::vector<Channel>{1, 0, 2}));
}

TEST(Pull, MakesNothingBeforeItIsAskedFor) {
  Loopback net(2);
  net.pulls = false;
  net.install_all();
  Buffers ones{std::vector<float>(1u << 16, 1), std::vector<float>(1u << 16, 0)};
  OpRequest request = net.all_reduce(ones, 0, Plan::direct);
  request.codec.id = CodecId::int8;
  net.submit(0, request);
  // Changing an input is the caller's mistake; here it shows when the bytes are made.
  ones.in[1u << 15] = 127;
  Send frame;
  ASSERT_TRUE(net.core(0).pull(peer_id(1), frame));
  EXPECT_EQ(frame.header.offset, 4u << 15);
  EXPECT_NE(frame.keep, nullptr);
  std::vector<float> decoded(256);
  decode(CodecId::int8, frame.payload.first(encoded_bytes(CodecId::int8, 256)), decoded);
  EXPECT_FLOAT_EQ(decoded[0], 127);
}

}  // namespace
}  // namespace reef::testing
