// What the plans compute, on networks that reorder: against sums made by hand, bit for bit.

#include <cstring>
#include <numeric>
#include <random>

#include "loopback.h"

namespace reef::testing {
namespace {

// Numbers whose sums are rounded, so that the order of additions shows in the bits.
std::vector<Buffers> random_inputs(std::size_t peers, std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> numbers(-1000.0F, 1000.0F);
  std::vector<Buffers> buffers(peers);
  for (Buffers& each : buffers) {
    each.in.resize(count);
    each.out.assign(count, -77.0F);
    for (float& number : each.in) number = numbers(random);
  }
  return buffers;
}

// The ring's dumb twin: segment s is ((x_s + x_s+1) + x_s+2) + ... going around from its owner.
std::vector<float> ring_sum(const std::vector<Buffers>& buffers) {
  const std::size_t peers = buffers.size();
  const std::size_t count = buffers[0].in.size();
  std::vector<float> sum(count);
  for (std::size_t segment = 0; segment < peers; ++segment) {
    for (std::size_t i = segment * count / peers; i < (segment + 1) * count / peers; ++i) {
      volatile float total = buffers[segment].in[i];
      for (std::size_t step = 1; step < peers; ++step) {
        total = total + buffers[(segment + step) % peers].in[i];
      }
      sum[i] = total;
    }
  }
  return sum;
}

// The direct plan's: part o is x_o + x_o-1 + x_o-2 + ....
std::vector<float> direct_sum(const std::vector<Buffers>& buffers) {
  const std::size_t peers = buffers.size();
  const std::size_t count = buffers[0].in.size();
  std::vector<float> sum(count);
  for (std::size_t owner = 0; owner < peers; ++owner) {
    for (std::size_t i = owner * count / peers; i < (owner + 1) * count / peers; ++i) {
      volatile float total = buffers[owner].in[i];
      for (std::size_t step = 1; step < peers; ++step) {
        total = total + buffers[(owner + peers - step) % peers].in[i];
      }
      sum[i] = total;
    }
  }
  return sum;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

struct Case {
  std::size_t peers;
  std::size_t count;
  std::uint32_t chunk_bytes;
};

const Case kCases[] = {
    {1, 100, 64},  {2, 100, 64},   {2, 1, 64},      {3, 2, 64},       {3, 1'000, 128},
    {4, 4, 4},     {5, 1'001, 64}, {8, 3, 4'096},   {7, 10'000, 256}, {4, 0, 64},
    {2, 4'096, 4'096}, {6, 999, 12}, {16, 5'000, 400}, {3, 17, 4},
};

class AllReduce : public ::testing::TestWithParam<Plan> {};

TEST_P(AllReduce, SumsInTheFixedOrderHoweverFramesArrive) {
  std::uint64_t seed = 1;
  for (const Case& each : kCases) {
    for (int repeat = 0; repeat < 4; ++repeat, ++seed) {
      CoreOptions options;
      options.chunk_bytes = each.chunk_bytes;
      options.eager_bytes = repeat == 3 ? 0 : 1u << 20;
      Loopback net(each.peers, options);
      if (repeat > 0) net.shuffle(seed);
      net.install_all();
      std::vector<Buffers> buffers = random_inputs(each.peers, each.count, seed);
      const std::vector<Buffers> originals = buffers;
      std::vector<OpId> ops;
      for (std::size_t peer = 0; peer < each.peers; ++peer) {
        ops.push_back(net.submit(peer, net.all_reduce(buffers[peer], 0, GetParam())));
      }
      net.run();
      const std::vector<float> expected =
          GetParam() == Plan::ring ? ring_sum(originals) : direct_sum(originals);
      for (std::size_t peer = 0; peer < each.peers; ++peer) {
        ASSERT_TRUE(net.ended_with(peer, ops[peer], Code::ok)) << each.peers << " " << each.count;
        EXPECT_TRUE(same_bits(buffers[peer].out, expected)) << each.peers << " " << each.count;
        EXPECT_TRUE(same_bits(buffers[peer].in, originals[peer].in));
      }
      EXPECT_TRUE(net.blamed().empty());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Plans, AllReduce, ::testing::Values(Plan::ring, Plan::direct),
                         [](const auto& which) {
                           return which.param == Plan::ring ? "Ring" : "Direct";
                         });

TEST(Broadcast, GivesTheRootsNumbersToAll) {
  std::uint64_t seed = 1;
  for (const Case& each : kCases) {
    for (std::size_t root = 0; root < each.peers; ++root, ++seed) {
      CoreOptions options;
      options.chunk_bytes = each.chunk_bytes;
      options.eager_bytes = seed % 3 == 0 ? 0 : 300;
      Loopback net(each.peers, options);
      net.shuffle(seed);
      net.install_all();
      std::vector<Buffers> buffers = random_inputs(each.peers, each.count, seed);
      for (std::size_t peer = 0; peer < each.peers; ++peer) {
        net.submit(peer, net.broadcast(buffers[peer], root));
      }
      net.run();
      for (std::size_t peer = 0; peer < each.peers; ++peer) {
        EXPECT_TRUE(same_bits(buffers[peer].out, buffers[root].in));
        EXPECT_EQ(net.core(peer).progress()[0], (Counters{1, 1, 1}));
      }
    }
  }
}

TEST(Broadcast, NeedsNoInputButTheRoots) {
  Loopback net(3);
  net.install_all();
  std::vector<Buffers> buffers = random_inputs(3, 50, 1);
  for (std::size_t peer = 0; peer < 3; ++peer) {
    OpRequest request = net.broadcast(buffers[peer], 1);
    if (peer != 1) request.in = {};
    net.submit(peer, request);
  }
  net.run();
  EXPECT_TRUE(same_bits(buffers[0].out, buffers[1].in));
  EXPECT_TRUE(same_bits(buffers[2].out, buffers[1].in));
}

TEST(Exchange, SwapsBetweenTwoAndLeavesTheChannelAlone) {
  for (std::uint64_t seed = 1; seed < 30; ++seed) {
    CoreOptions options;
    options.chunk_bytes = 64;
    options.eager_bytes = seed % 2 == 0 ? 0 : 128;
    Loopback net(4, options);
    net.shuffle(seed);
    net.install_all();
    std::vector<Buffers> buffers = random_inputs(4, 200, seed);
    std::vector<OpId> ops(4);
    for (std::size_t peer : {0u, 3u, 1u, 2u}) {
      ops[peer] = net.submit(peer, net.exchange(buffers[peer], peer ^ 1u, 7));
      net.step([](const Frame&) { return true; });
    }
    net.run();
    for (std::size_t peer = 0; peer < 4; ++peer) {
      EXPECT_TRUE(net.ended_with(peer, ops[peer], Code::ok));
      EXPECT_TRUE(same_bits(buffers[peer].out, buffers[peer ^ 1u].in));
      EXPECT_TRUE(net.core(peer).progress().empty());
    }
  }
}

TEST(Placement, InOrderFramesOfGatherHopsGoStraightIntoTheOutput) {
  CoreOptions options;
  options.chunk_bytes = 256;
  Loopback net(2, options);
  net.install_all();
  std::vector<Buffers> buffers = random_inputs(2, 512, 3);
  for (std::size_t peer = 0; peer < 2; ++peer) {
    net.submit(peer, net.all_reduce(buffers[peer], 0, Plan::ring));
  }
  net.run();
  // Two members, 1,024 bytes a segment, 4 chunks each: all gather chunks, no reduce chunk.
  EXPECT_EQ(net.placed(), 8u);
}

TEST(Placement, DirectReceivesTheFirstContributionInPlaceToo) {
  CoreOptions options;
  options.chunk_bytes = 256;
  Loopback net(3, options);
  net.install_all();
  std::vector<Buffers> buffers = random_inputs(3, 192, 3);  // one chunk a part
  for (std::size_t peer = 0; peer < 3; ++peer) {
    net.submit(peer, net.all_reduce(buffers[peer], 0, Plan::direct));
  }
  net.run();
  // Results: 3 parts to 2 others; rank 0's contributions to the owners 1 and 2. One of these was
  // sent before its owner had started, and came through the early store.
  EXPECT_GE(net.placed(), 6u);
  EXPECT_LE(net.placed(), 8u);
}

}  // namespace
}  // namespace reef::testing
