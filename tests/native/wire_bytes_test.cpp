// The bytes that docs/collectives.md promises for each plan, counted: payload by payload on a
// network of cores, and at the sockets of real engines.

#include <bit>

#include "island.h"
#include "loopback.h"

namespace reef::testing {
namespace {

constexpr std::uint64_t kStart = kHeaderBytes + kDescriptionBytes;
constexpr std::uint64_t kDone = kHeaderBytes;

struct Count {
  std::vector<std::uint64_t> payload;  // by sender
  std::vector<std::uint64_t> notices;  // bytes of STARTs and DONEs, with headers
};

template <typename MakeRequest>
Count count_bytes(std::size_t peers, MakeRequest request) {
  Loopback net(peers);
  net.install_all();
  for (std::size_t peer = 0; peer < peers; ++peer) net.submit(peer, request(net, peer));
  Count count{std::vector<std::uint64_t>(peers), std::vector<std::uint64_t>(peers)};
  while (!net.under_way.empty()) {
    const Frame frame = net.under_way.front();
    net.under_way.erase(net.under_way.begin());
    if (frame.header.type == FrameType::data) {
      count.payload[frame.from] += frame.payload.size();
    } else {
      count.notices[frame.from] += kHeaderBytes + frame.payload.size();
    }
    net.deliver(frame);
  }
  for (std::size_t peer = 0; peer < peers; ++peer) {
    EXPECT_EQ(count.notices[peer], (peers - 1) * (kStart + kDone));
  }
  EXPECT_EQ(net.core(0).tally().ops_committed, 1u);
  return count;
}

std::vector<Buffers> buffers_of(std::size_t peers, std::size_t in, std::size_t out) {
  return std::vector<Buffers>(peers, Buffers{std::vector<float>(in, 1), std::vector<float>(out)});
}

class PlanBytes : public ::testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Members, PlanBytes, ::testing::Values(2, 3, 4, 5, 8));

// S is divisible by all numbers of members: formulas are exact.
constexpr std::size_t kCount = 4 * 3 * 5 * 8 * 256;
constexpr std::uint64_t kBytes = 4 * kCount;

Count all_reduce_bytes(std::size_t peers, Plan plan, CodecId codec = CodecId::fp32) {
  std::vector<Buffers> buffers = buffers_of(peers, kCount, kCount);
  return count_bytes(peers, [&](Loopback& net, std::size_t peer) {
    OpRequest request = net.all_reduce(buffers[peer], 0, plan);
    request.codec.id = codec;
    return request;
  });
}

TEST_P(PlanBytes, RingAndDirectSendTwiceTheVectorButForAnNth) {
  const std::uint64_t peers = GetParam();
  for (const Plan plan : {Plan::ring, Plan::direct}) {
    for (const std::uint64_t sent : all_reduce_bytes(peers, plan).payload) {
      EXPECT_EQ(sent, 2 * (peers - 1) * kBytes / peers) << plan_name(plan);
    }
  }
}

TEST_P(PlanBytes, ACodecScalesThem) {
  const std::uint64_t peers = GetParam();
  for (std::size_t id = 1; id < kCodecs; ++id) {
    const auto codec = static_cast<CodecId>(id);
    const std::uint64_t coded = encoded_bytes(codec, kCount);
    for (const Plan plan : {Plan::ring, Plan::direct}) {
      for (const std::uint64_t sent : all_reduce_bytes(peers, plan, codec).payload) {
        EXPECT_EQ(sent, 2 * (peers - 1) * coded / peers) << plan_name(plan) << codec_name(codec);
      }
    }
  }
}

TEST_P(PlanBytes, MeshSendsTheVectorToEachOther) {
  const std::uint64_t peers = GetParam();
  for (const std::uint64_t sent : all_reduce_bytes(peers, Plan::mesh).payload) {
    EXPECT_EQ(sent, (peers - 1) * kBytes);
  }
}

TEST_P(PlanBytes, DoublingSendsTheVectorOnceAStep) {
  const std::uint64_t peers = GetParam();
  const std::uint64_t core = std::bit_floor(peers);
  const auto steps = static_cast<std::uint64_t>(std::countr_zero(core));
  const Count count = all_reduce_bytes(peers, Plan::doubling);
  for (std::size_t peer = 0; peer < peers; ++peer) {
    const std::uint64_t wanted = peer >= core           ? kBytes                  // folded in
                                 : peer + core < peers  ? (steps + 1) * kBytes    // and back
                                                        : steps * kBytes;
    EXPECT_EQ(count.payload[peer], wanted) << peer;
  }
}

TEST_P(PlanBytes, MovesSendEachBlockOnce) {
  const std::uint64_t peers = GetParam();
  std::vector<Buffers> gather = buffers_of(peers, 1'000, 1'000 * peers);
  std::vector<Buffers> all = buffers_of(peers, 1'000 * peers, 1'000 * peers);
  std::vector<Buffers> scatter = buffers_of(peers, kCount, kCount / peers);
  std::vector<Buffers> same = buffers_of(peers, 1'000, 1'000);
  const auto request = [&](Loopback& net, std::vector<Buffers>& buffers, std::size_t peer,
                           OpKind kind, std::uint64_t count) {
    OpRequest made = net.all_reduce(buffers[peer]);
    made.kind = kind;
    made.count = count;
    made.root = peer_id(0);
    return made;
  };
  const Count gathered = count_bytes(peers, [&](Loopback& net, std::size_t peer) {
    return request(net, gather, peer, OpKind::all_gather, 1'000);
  });
  const Count exchanged = count_bytes(peers, [&](Loopback& net, std::size_t peer) {
    return request(net, all, peer, OpKind::all_to_all, 1'000);
  });
  const Count scattered = count_bytes(peers, [&](Loopback& net, std::size_t peer) {
    return request(net, scatter, peer, OpKind::reduce_scatter, kCount);
  });
  const Count broadcast = count_bytes(peers, [&](Loopback& net, std::size_t peer) {
    return request(net, same, peer, OpKind::broadcast, 1'000);
  });
  for (std::size_t peer = 0; peer < peers; ++peer) {
    EXPECT_EQ(gathered.payload[peer], (peers - 1) * 4'000);
    EXPECT_EQ(exchanged.payload[peer], (peers - 1) * 4'000);
    EXPECT_EQ(scattered.payload[peer], (peers - 1) * kBytes / peers);
    EXPECT_EQ(broadcast.payload[peer], peer + 1 == peers ? 0u : 4'000u);
  }
}

// In a large view the notices that all is well grow with the members, not with their square.
TEST(TreeDone, TakesTwoFramesAMember) {
  for (const std::size_t peers : {9, 16, 23, 64}) {
    Loopback net(peers);
    net.install_all();
    for (std::size_t peer = 0; peer < peers; ++peer) {
      OpRequest request = net.barrier();
      request.id = peer + 1;
      net.submit(peer, request);
    }
    std::size_t dones = 0;
    while (!net.under_way.empty()) {
      const Frame frame = net.under_way.back();
      net.under_way.pop_back();
      dones += frame.header.type == FrameType::done ? 1 : 0;
      net.deliver(frame);
    }
    EXPECT_EQ(dones, 2 * (peers - 1));
    for (std::size_t peer = 0; peer < peers; ++peer) {
      EXPECT_TRUE(net.ended_with(peer, peer + 1, Code::ok));
    }
  }
}

// Who contributes nothing sends nothing to the owners, but still owns a part.
TEST_P(PlanBytes, WhoContributesNothingSendsHalf) {
  const std::uint64_t peers = GetParam();
  std::vector<Buffers> buffers = buffers_of(peers, kCount, kCount);
  const Count count = count_bytes(peers, [&](Loopback& net, std::size_t peer) {
    OpRequest request = net.all_reduce(buffers[peer], 0, Plan::direct);
    if (peer == 0) request.weight = 0;
    return request;
  });
  EXPECT_EQ(count.payload[0], (peers - 1) * kBytes / peers);
  EXPECT_EQ(count.payload[1], 2 * (peers - 1) * kBytes / peers);
}

// And at the sockets: payloads, a header for each chunk, and the notices; nothing else.
TEST(SocketBytes, AreThoseOfThePlan) {
  constexpr std::size_t kMembers = 3;
  constexpr std::size_t kElements = 3 * 40'000;
  Atoll atoll(kMembers, [](EngineOptions& options) {
    options.heartbeat = 600 * kSecond;
    options.silence = 900 * kSecond;
    options.core.chunk_bytes = 40'000;  // 4 chunks a part
  });
  const auto sent = [&] {
    std::vector<std::uint64_t> bytes;
    for (auto& island : atoll.islands) {
      bytes.push_back(0);
      for (const LinkStats& link : island->engine->stats().links) bytes.back() += link.sent_bytes;
    }
    return bytes;
  };
  for (const Plan plan : {Plan::direct, Plan::ring}) {
    const std::vector<std::uint64_t> before = sent();
    std::vector<std::vector<float>> in(kMembers, std::vector<float>(kElements, 1));
    std::vector<std::vector<float>> out(kMembers, std::vector<float>(kElements, 0));
    std::vector<OpId> ops;
    for (std::size_t i = 0; i < kMembers; ++i) {
      ops.push_back(atoll[i].all_reduce(in[i], out[i], plan));
    }
    for (std::size_t i = 0; i < kMembers; ++i) EXPECT_EQ(atoll[i].code(ops[i]), Code::ok);
    const std::vector<std::uint64_t> after = sent();
    const std::uint64_t payload = 2 * (kMembers - 1) * 4 * kElements / kMembers;
    const std::uint64_t chunks = payload / 40'000;
    for (std::size_t i = 0; i < kMembers; ++i) {
      EXPECT_EQ(after[i] - before[i],
                payload + chunks * kHeaderBytes + (kMembers - 1) * (kStart + kDone))
          << plan_name(plan);
    }
  }
}

}  // namespace
}  // namespace reef::testing
