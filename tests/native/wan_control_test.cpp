// The emulator's commands and packets.
#include "wan/emulator/control.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "wan/emulator/packet.h"

namespace wan {
namespace {

class WanControl : public ::testing::Test {
 protected:
  std::string say(const std::string& line) { return obey(line, network, lateness); }

  Network network{3, 1};
  Lateness lateness;
};

TEST_F(WanControl, SettingsOfAHost) {
  EXPECT_EQ(say("host 1 up 20 down 200 queue 250"), "ok");
  EXPECT_EQ(network.line(1).up_bits_per_s, 20e6);
  EXPECT_EQ(network.line(1).down_bits_per_s, 200e6);
  EXPECT_EQ(network.line(1).queue, 250 * kMillisecond);
  EXPECT_EQ(network.line(0).up_bits_per_s, 1e9);
  EXPECT_EQ(say("host * up 5"), "ok");
  for (Host host = 0; host < 3; ++host) EXPECT_EQ(network.line(host).up_bits_per_s, 5e6);
}

TEST_F(WanControl, ALinkIsBothWaysAPathOne) {
  EXPECT_EQ(say("link 0 2 delay 40 loss 0.001 jitter 2 rate 50"), "ok");
  for (const Path* path : {&network.path(0, 2), &network.path(2, 0)}) {
    EXPECT_EQ(path->delay, 40 * kMillisecond);
    EXPECT_EQ(path->jitter, 2 * kMillisecond);
    EXPECT_EQ(path->loss, 0.001);
    EXPECT_EQ(path->bits_per_s, 50e6);
  }
  EXPECT_EQ(say("path 0 2 rate 0"), "ok");
  EXPECT_EQ(network.path(0, 2).bits_per_s, 0);
  EXPECT_EQ(network.path(2, 0).bits_per_s, 50e6);
  EXPECT_EQ(network.path(0, 1).delay, 0);
}

TEST_F(WanControl, CutsAreHealedAndIsolationLeavesThemAlone) {
  EXPECT_EQ(say("cut 0 1"), "ok");
  EXPECT_TRUE(network.path(1, 0).cut);
  EXPECT_EQ(say("isolate 1"), "ok");
  EXPECT_TRUE(network.line(1).isolated);
  EXPECT_EQ(say("rejoin 1"), "ok");
  EXPECT_FALSE(network.line(1).isolated);
  EXPECT_TRUE(network.path(0, 1).cut);
  EXPECT_EQ(say("heal * *"), "ok");
  EXPECT_FALSE(network.path(0, 1).cut);
}

TEST_F(WanControl, WhatIsImpossibleIsRefusedAndChangesNothing) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"host 3 up 1", "there is no host 3"},
      {"host -1 up 1", "there is no host -1"},
      {"host 0 up 0", "up 0 is not between 0.001 and 100000 Mbit/s"},
      {"host 0 up -5", "not between"},
      {"host 0 up nan", "not between"},
      {"host 0 up 5x", "not between"},
      {"host 0 speed 5", "a host has no 'speed'"},
      {"host 0 up", "takes 1 host and then names with their values"},
      {"link 0 1 loss 1.5", "not between 0 and 1"},
      {"link 0 1 delay 99999999", "not between"},
      {"link 0 1 rate -1", "not between"},
      {"link 0 0 delay 1", "no link to itself"},
      {"link 0", "takes 2 hosts"},
      {"cut 0", "takes two hosts"},
      {"isolate", "takes one host"},
      {"explode 1", "no command 'explode'"},
      {"   ", "an empty line"},
  };
  for (const auto& [line, why] : wrong) {
    const std::string answer = say(line);
    EXPECT_EQ(answer.rfind("error: ", 0), 0u) << line;
    EXPECT_NE(answer.find(why), std::string::npos) << line << " -> " << answer;
  }
  EXPECT_NE(say("host 0 up 7 down 0").find("down 0"), std::string::npos);
  EXPECT_EQ(network.line(0).up_bits_per_s, 1e9) << "half of a line was done";
}

TEST_F(WanControl, AReportCountsFromTheMark) {
  lateness.add(3 * kMillisecond);
  EXPECT_NE(say("report").find("\"late_p99_us\": 3000, \"late_most_us\": 3000, \"void\": true"),
            std::string::npos);
  EXPECT_EQ(say("mark"), "ok");
  const std::string answer = say("report");
  EXPECT_NE(answer.find("{\"packets\": 0, "), std::string::npos) << answer;
  EXPECT_NE(answer.find("\"void\": false"), std::string::npos) << answer;
}

// A virtio header, IPv4 and TCP headers without options, and bytes 0, 1, 2, ...
std::vector<std::byte> stream_packet(std::size_t payload, std::uint16_t segment) {
  std::vector<std::byte> packet(kVirtioBytes + 40 + payload);
  const auto put16 = [&](std::size_t at, std::size_t value) {
    packet[at] = static_cast<std::byte>(value >> 8);
    packet[at + 1] = static_cast<std::byte>(value & 0xff);
  };
  packet[0] = std::byte{1};                                // the checksum is partial
  packet[1] = std::byte{segment > 0 ? std::uint8_t{1} : std::uint8_t{0}};
  std::memcpy(packet.data() + 4, &segment, 2);
  packet[kVirtioBytes] = std::byte{0x45};
  put16(kVirtioBytes + 2, 40 + payload);
  put16(kVirtioBytes + 4, 0x1234);                         // IP's id
  packet[kVirtioBytes + 9] = std::byte{6};
  for (std::size_t i = 0; i < 8; ++i) packet[kVirtioBytes + 12 + i] = static_cast<std::byte>(i);
  put16(kVirtioBytes + 20 + 6, 100);                       // TCP's sequence
  packet[kVirtioBytes + 20 + 12] = std::byte{0x50};
  packet[kVirtioBytes + 20 + 13] = std::byte{0x19};        // FIN, PSH, ACK
  for (std::size_t i = 0; i < payload; ++i) {
    packet[kVirtioBytes + 40 + i] = static_cast<std::byte>(i & 0xff);
  }
  return packet;
}

std::uint32_t number_at(const std::vector<std::byte>& packet, std::size_t at, std::size_t bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) {
    value = value << 8 | std::to_integer<std::uint32_t>(packet[kVirtioBytes + at + i]);
  }
  return value;
}

TEST(WanPacket, ManySegmentsAreCounted) {
  const auto packet = stream_packet(2'500, 1'000);
  const auto view = look_at(packet);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->from, 0x00010203u);
  EXPECT_EQ(view->to, 0x04050607u);
  EXPECT_EQ(view->segments(), 3u);
  EXPECT_EQ(view->segment_bytes(), 1'040u);
  EXPECT_EQ(view->last_bytes(), 540u);
}

TEST(WanPacket, OneSegmentIsOneWhateverItCarries) {
  for (const std::size_t payload : {0u, 1u, 1'460u}) {
    const auto view = look_at(stream_packet(payload, 0));
    ASSERT_TRUE(view);
    EXPECT_EQ(view->segments(), 1u);
    EXPECT_EQ(view->last_bytes(), 40 + payload);
  }
}

TEST(WanPacket, ASliceIsAPacketOfItsOwn) {
  const auto packet = stream_packet(2'500, 1'000);
  const auto view = look_at(packet);
  ASSERT_TRUE(view);
  const auto middle = slice(packet, *view, 1, 1);
  ASSERT_EQ(middle.size(), kVirtioBytes + 40 + 1'000);
  EXPECT_EQ(number_at(middle, 2, 2), 1'040u);
  EXPECT_EQ(number_at(middle, 4, 2), 0x1235u);
  EXPECT_EQ(number_at(middle, 24, 4), 1'100u);             // sequence
  EXPECT_EQ(number_at(middle, 33, 1), 0x10u) << "only the last segment ends the stream";
  EXPECT_EQ(middle[1], std::byte{0}) << "one segment needs no cutting";
  EXPECT_EQ(middle[kVirtioBytes + 40], static_cast<std::byte>(1'000 & 0xff));
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < 20; i += 2) sum += number_at(middle, i, 2);
  EXPECT_EQ((sum & 0xffff) + (sum >> 16), 0xffffu) << "IP's checksum";
  const auto rest = slice(packet, *view, 1, 2);
  EXPECT_EQ(look_at(rest)->segments(), 2u);
  EXPECT_EQ(look_at(rest)->last_bytes(), 540u);
  EXPECT_EQ(number_at(rest, 33, 1), 0x19u);
  EXPECT_EQ(slice(packet, *view, 0, 3), packet);
}

TEST(WanPacket, WhatIsNoPacketIsRefused) {
  const auto packet = stream_packet(2'500, 1'000);
  for (std::size_t bytes = 0; bytes < packet.size(); ++bytes) {
    EXPECT_FALSE(look_at(std::span(packet).first(bytes))) << bytes;
  }
  auto other = packet;
  other[kVirtioBytes] = std::byte{0x65};  // IPv6
  EXPECT_FALSE(look_at(other));
  other = packet;
  other[kVirtioBytes + 20 + 12] = std::byte{0xf0};  // a TCP header of 60 bytes is there ...
  EXPECT_TRUE(look_at(other));
  other = stream_packet(0, 1'000);
  other[kVirtioBytes + 20 + 12] = std::byte{0xf0};  // ... and here it is not
  EXPECT_FALSE(look_at(other));
}

}  // namespace
}  // namespace wan
