// Plans over a measured topology: sites, unequal parts, a ring that is not by rank. Bits equal on all
// members, sums exact, bytes where they belong.

#include <memory>
#include <vector>

#include "atoll/topology/topology.h"
#include "loopback.h"

namespace reef::testing {
namespace {

// Members of one site are close; `slow` reaches nobody fast.
std::shared_ptr<const Topology> topology_of(const std::vector<int>& sites, std::size_t slow) {
  Topology topology;
  topology.members = static_cast<Rank>(sites.size());
  for (std::size_t from = 0; from < sites.size(); ++from) {
    for (std::size_t to = 0; to < sites.size(); ++to) {
      LinkFigures figures;
      if (from != to) {
        const bool near = sites[from] == sites[to];
        figures = {near ? 1e9 : 1e7 * (1 + double((3 * from + to) % 5)), near ? 1e-4 : 5e-2};
        if (from == slow || to == slow) figures.bytes_per_s /= 4;
      }
      topology.links.push_back(figures);
    }
    topology.egress_bytes_per_s.push_back(from == slow ? 5e6 : 1e9);
    topology.ingress_bytes_per_s.push_back(from == slow ? 5e6 : 1e9);
  }
  derive(topology);
  return std::make_shared<const Topology>(std::move(topology));
}

struct World {
  World(const std::vector<int>& sites, std::size_t slow, std::uint64_t seed)
      : net(sites.size(), options()) {
    net.shuffle(seed);
    View view = Loopback::view_of(1, everyone(sites.size()));
    view.topology = topology_of(sites, slow);
    for (std::size_t peer = 0; peer < sites.size(); ++peer) {
      net.core(peer).install(view, {}, Change::abort, 0);
    }
    net.collect();
  }
  static CoreOptions options() {
    CoreOptions options;
    options.chunk_bytes = 1'024;
    return options;
  }
  static std::vector<std::size_t> everyone(std::size_t peers) {
    std::vector<std::size_t> all;
    for (std::size_t peer = 0; peer < peers; ++peer) all.push_back(peer);
    return all;
  }
  Loopback net;
};

const std::vector<std::vector<int>> kSites = {
    {0, 0, 1, 1}, {0, 1, 0, 1, 1}, {0, 0, 0, 1}, {0, 1, 2, 0, 1, 2, 2}, {0, 0, 0}, {0, 1},
};

TEST(MeasuredPlans, SumExactlyAndAlike) {
  std::uint64_t seed = 1;
  for (const std::vector<int>& sites : kSites) {
    for (const Plan plan : {Plan::none, Plan::ring, Plan::direct, Plan::grouped}) {
      for (const std::size_t count : {0, 1, 5, 300, 9'001}) {
        for (const CodecId codec : {CodecId::fp32, CodecId::int8}) {
          const std::size_t peers = sites.size();
          ++seed;
          World world(sites, seed % peers, seed);
          std::vector<Buffers> buffers(peers);
          std::vector<OpId> ops;
          for (std::size_t peer = 0; peer < peers; ++peer) {
            buffers[peer].in.resize(count);
            buffers[peer].out.assign(count, -1.0F);
            for (std::size_t i = 0; i < count; ++i) {
              buffers[peer].in[i] = static_cast<float>((peer * 7 + i * 3) % 11);
            }
            OpRequest request = world.net.all_reduce(buffers[peer], 0, plan);
            request.codec.id = codec;
            request.reduction = Reduction::avg;
            request.weight = peer == 0 && peers > 2 ? 0 : 2;
            ops.push_back(world.net.submit(peer, request));
          }
          world.net.run();
          EXPECT_TRUE(world.net.blamed().empty());
          const std::size_t first = peers > 2 ? 1 : 0;
          for (std::size_t peer = 0; peer < peers; ++peer) {
            ASSERT_TRUE(world.net.ended_with(peer, ops[peer], Code::ok))
                << plan_name(plan) << " " << peers << " " << count;
            ASSERT_EQ(buffers[peer].out, buffers[0].out);
          }
          for (std::size_t i = 0; i < count; ++i) {
            double sum = 0;
            for (std::size_t peer = first; peer < peers; ++peer) {
              sum += static_cast<double>(buffers[peer].in[i]);
            }
            const double wanted = sum / static_cast<double>(peers - first);
            const double tolerance = codec == CodecId::fp32 ? 1e-6 : 0.3;
            ASSERT_NEAR(static_cast<double>(buffers[0].out[i]), wanted, tolerance) << i;
          }
        }
      }
    }
  }
}

// Between sites a number travels once each way, whatever the number of members there.
TEST(MeasuredPlans, GroupedCrossesBetweenSitesOnceEachWay) {
  const std::vector<int> sites = {0, 0, 0, 1, 1, 1};
  World world(sites, 99, 5);
  std::vector<Buffers> buffers(6);
  for (std::size_t peer = 0; peer < 6; ++peer) {
    buffers[peer] = {std::vector<float>(6'000, 1), std::vector<float>(6'000, 0)};
    world.net.submit(peer, world.net.all_reduce(buffers[peer], 0, Plan::grouped));
  }
  std::uint64_t crossing = 0;
  while (!world.net.under_way.empty()) {
    const Frame frame = world.net.under_way.front();
    world.net.under_way.erase(world.net.under_way.begin());
    if (frame.header.type == FrameType::data && sites[frame.from] != sites[frame.to]) {
      crossing += frame.payload.size();
    }
    world.net.deliver(frame);
  }
  EXPECT_EQ(crossing, 2u * 24'000);  // each site's half of the sums goes over, and a result comes
  for (const Buffers& each : buffers) EXPECT_EQ(each.out, std::vector<float>(6'000, 6));
}

}  // namespace
}  // namespace reef::testing
