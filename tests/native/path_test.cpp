// What a link's connections make of their path: how much waits in the kernel, how large chunks are.
#include "atoll/net/path.h"

#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <linux/inet_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "atoll/base/limits.h"
#include "atoll/collective/planning.h"
#include "atoll/net/fd.h"
#include "topology_samples.h"

namespace reef {
namespace {

TEST(Path, LittleWaitsUnsentBehindASlowConnection) {
  EXPECT_EQ(unsent_bytes_for(0), 32 << 10);
  EXPECT_EQ(unsent_bytes_for(0.5e6), 32 << 10);   // 65 ms of it
  EXPECT_EQ(unsent_bytes_for(10e6), 200'000);     // 20 ms
  EXPECT_EQ(unsent_bytes_for(1e12), kUnsentBytes);
}

TEST(Path, ASocketHasTheCongestionControlThatItIsGiven) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(fd.valid());
  const std::string before = congestion_of(fd.get());
  EXPECT_FALSE(before.empty());
  choose_congestion(fd.get(), "");
  EXPECT_EQ(congestion_of(fd.get()), before);
  choose_congestion(fd.get(), kAutomatic);  // its path is not long
  EXPECT_EQ(congestion_of(fd.get()), before);
  choose_congestion(fd.get(), "none-such");
  EXPECT_EQ(congestion_of(fd.get()), before);
  choose_congestion(fd.get(), "reno");  // which every kernel has
  EXPECT_EQ(congestion_of(fd.get()), "reno");
  EXPECT_TRUE(has_congestion("reno"));
  EXPECT_FALSE(has_congestion("none-such"));
}

// What BBR thinks its path carries.
std::uint64_t bbr_bytes_per_s(int fd) {
  tcp_cc_info info{};
  socklen_t length = sizeof info;
  EXPECT_EQ(::getsockopt(fd, IPPROTO_TCP, TCP_CC_INFO, &info, &length), 0);
  return std::uint64_t{info.bbr.bbr_bw_hi} << 32 | info.bbr.bbr_bw_lo;
}

TEST(Path, BbrBeginsAnewAndOthersGoOn) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Fd sender(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* at = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), at, length), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::getsockname(listener.get(), at, &length), 0);
  ASSERT_EQ(::connect(sender.get(), at, length), 0);
  const Fd receiver(::accept(listener.get(), nullptr, nullptr));
  ASSERT_TRUE(receiver.valid());
  choose_congestion(sender.get(), "reno");
  renew_congestion(sender.get());
  EXPECT_EQ(congestion_of(sender.get()), "reno");
  choose_congestion(sender.get(), "bbr");
  if (congestion_of(sender.get()) != "bbr") GTEST_SKIP() << "this system has no BBR";
  std::vector<char> bytes(64 << 10);
  ASSERT_EQ(::send(sender.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(::recv(receiver.get(), bytes.data(), bytes.size(), MSG_WAITALL), static_cast<ssize_t>(bytes.size()));
  // The answer carries the acknowledgement of what was read.
  ASSERT_EQ(::send(receiver.get(), "x", 1, 0), 1);
  ASSERT_EQ(::recv(sender.get(), bytes.data(), 1, MSG_WAITALL), 1);
  EXPECT_GT(bbr_bytes_per_s(sender.get()), 0u);
  renew_congestion(sender.get());
  EXPECT_EQ(congestion_of(sender.get()), "bbr");
  EXPECT_EQ(bbr_bytes_per_s(sender.get()), 0u);
}

TEST(Path, WhatIsNoSocketTellsNothing) {
  EXPECT_EQ(round_trip_s(-1), 0);
  EXPECT_EQ(delivered_bytes_per_s(-1), 0);
  EXPECT_EQ(congestion_of(-1), "");
  EXPECT_EQ(limit_unsent(-1), 32 << 10);
}

std::uint32_t chunk_in(double bytes_per_s, double rtt_s, CodecId codec = CodecId::fp32) {
  Topology topology = uniform_topology(4, bytes_per_s, rtt_s);
  derive(topology);
  View view;
  view.members.resize(4);
  view.topology = std::make_shared<const Topology>(std::move(topology));
  OpRequest request;
  request.kind = OpKind::all_reduce;
  request.count = 16u << 20;
  request.dtype = DType::f32;
  request.codec.id = codec;
  return choose(request, view, CoreOptions{}).chunk_bytes;
}

TEST(Path, ChunksTakeNoLongerThanTheWayItself) {
  // 25 MB/s and 40 ms one way are 1 MB under way, on 16 connections to each of 3 members.
  EXPECT_EQ(chunk_in(25e6, 0.08), 16u << 10);
  EXPECT_EQ(chunk_in(250e6, 0.08), 128u << 10);
  EXPECT_EQ(chunk_in(25e6, 0.08, CodecId::int8), 64u << 10) << "as many bytes travel";
  EXPECT_EQ(chunk_in(1e3, 0.08), kLeastLongChunkBytes);
  EXPECT_EQ(chunk_in(25e6, 0.001), limits::kMostChunkBytes) << "a short path has large ones";
}

}  // namespace
}  // namespace reef
