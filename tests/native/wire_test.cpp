// Frames: round trips, the exact bytes, and every refusal.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "atoll/base/endian.h"
#include "atoll/base/limits.h"
#include "atoll/net/handshake.h"
#include "atoll/wire/description.h"
#include "atoll/wire/frame.h"

namespace reef {
namespace {

FrameHeader some_header() {
  FrameHeader header;
  header.type = FrameType::data;
  header.phase = 0x0201;
  header.channel = 0x06050403;
  header.length = 4'096;
  header.epoch = 0x1122334455667788;
  header.sequence = 0x99aabbccddeeff00;
  header.offset = 0x0102030405060708;
  header.sender_rank = 17;
  return header;
}

Hello some_hello() {
  Hello hello;
  hello.connection_index = 2;
  hello.connections = 4;
  for (std::size_t i = 0; i < 16; ++i) {
    hello.sender.bytes[i] = static_cast<std::uint8_t>(i);
    hello.receiver.bytes[i] = static_cast<std::uint8_t>(100 + i);
    hello.nonce[i] = static_cast<std::uint8_t>(200 + i);
    hello.secret[i] = static_cast<std::uint8_t>(50 + i);
  }
  return hello;
}

OpDescription some_description() {
  OpDescription description;
  description.kind = OpKind::all_reduce;
  description.plan = Plan::ring;
  description.reduction = Reduction::sum;
  description.count = 1'000'000'007;
  description.chunk_bytes = 262'144;
  description.note = 0x0123'4567'89ab'cdef;
  return description;
}

TEST(Endian, IsLittle) {
  std::byte bytes[8];
  store_le<std::uint32_t>(bytes, 0x04030201);
  EXPECT_EQ(bytes[0], std::byte{1});
  EXPECT_EQ(bytes[3], std::byte{4});
  EXPECT_EQ(load_le<std::uint32_t>(bytes), 0x04030201u);
  store_le<std::uint64_t>(bytes, UINT64_MAX - 1);
  EXPECT_EQ(load_le<std::uint64_t>(bytes), UINT64_MAX - 1);
}

// The offsets of docs/wire.md.
TEST(Header, HasTheBytesOfTheSpecification) {
  const HeaderBytes bytes = encode_header(some_header());
  const auto at = [&](std::size_t offset) { return std::to_integer<int>(bytes[offset]); };
  EXPECT_EQ(at(0), 'A');
  EXPECT_EQ(at(1), 'T');
  EXPECT_EQ(at(2), 1);
  EXPECT_EQ(at(3), 5);
  EXPECT_EQ(at(4), 0x01);
  EXPECT_EQ(at(8), 0x03);
  EXPECT_EQ(load_le<std::uint32_t>(bytes.data() + 12), 4'096u);
  EXPECT_EQ(at(16), 0x88);
  EXPECT_EQ(at(24), 0x00);
  EXPECT_EQ(at(32), 0x08);
  EXPECT_EQ(at(40), 17);
  EXPECT_EQ(load_le<std::uint32_t>(bytes.data() + 44), 0u);
}

TEST(Header, RoundTripsForEveryType) {
  const std::vector<std::pair<FrameType, std::uint32_t>> types = {
      {FrameType::hello, 112},        {FrameType::hello_ack, 112},
      {FrameType::heartbeat, 0},      {FrameType::start, 48},
      {FrameType::data, 0},           {FrameType::data, limits::kMaxPayload},
      {FrameType::done, 0},           {FrameType::state_request, 8},
      {FrameType::state_data, 0},     {FrameType::state_data, limits::kMaxPayload},
      {FrameType::state_nack, 8},     {FrameType::bye, 0},
      {FrameType::probe, 1 << 16},     {FrameType::probe_reply, 16},
  };
  for (const auto& [type, length] : types) {
    FrameHeader header = some_header();
    header.type = type;
    header.length = length;
    const auto parsed = parse_header(encode_header(header));
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(parsed.value(), header);
  }
}

TEST(Header, RefusesWhatBreaksARule) {
  const HeaderBytes good = encode_header(some_header());
  for (std::size_t size = 0; size < kHeaderBytes; ++size) {
    EXPECT_FALSE(parse_header(std::span(good).first(size)).ok());
  }
  // offset, wrong value
  const std::vector<std::pair<std::size_t, int>> breaks = {
      {0, 'B'}, {1, 'A'}, {2, 0}, {2, 2}, {3, 0}, {3, 13}, {3, 255},
      {6, 1},   {7, 128}, {44, 1}, {47, 1}};
  for (const auto& [offset, value] : breaks) {
    HeaderBytes bad = good;
    bad[offset] = static_cast<std::byte>(value);
    const auto parsed = parse_header(bad);
    ASSERT_FALSE(parsed.ok()) << "offset " << offset;
    EXPECT_EQ(parsed.error().code, Code::protocol);
    EXPECT_FALSE(parsed.error().message.empty());
  }
}

TEST(Header, RefusesLengthsThatAreAbsurdForTheType) {
  const std::vector<std::pair<FrameType, std::uint32_t>> absurd = {
      {FrameType::hello, 111},         {FrameType::hello, 0},
      {FrameType::hello_ack, 113},     {FrameType::heartbeat, 1},
      {FrameType::start, 47},          {FrameType::start, 49},
      {FrameType::done, 1},            {FrameType::bye, 8},
      {FrameType::state_request, 7},   {FrameType::state_nack, 9},
      {FrameType::data, UINT32_MAX},   {FrameType::data, limits::kMaxPayload + 1},
      {FrameType::state_data, limits::kMaxPayload + 1}};
  for (const auto& [type, length] : absurd) {
    FrameHeader header;
    header.type = type;
    header.length = length;
    EXPECT_FALSE(parse_header(encode_header(header)).ok())
        << static_cast<int>(type) << " with " << length;
  }
}

TEST(HelloFrame, RoundTrips) {
  const auto parsed = parse_hello(encode_hello(some_hello()));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed.value(), some_hello());
}

TEST(HelloFrame, RoundTripsForARepair) {
  Hello hello = some_hello();
  hello.flags = kHelloRepair | kHelloChecksums;
  hello.received = 0x1122334455667788;
  hello.attempt = 0x99aabbcc;
  const auto parsed = parse_hello(encode_hello(hello));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed.value(), hello);
}

TEST(HelloFrame, RefusesWhatBreaksARule) {
  const HelloBytes good = encode_hello(some_hello());
  EXPECT_FALSE(parse_hello(std::span(good).first(111)).ok());
  EXPECT_FALSE(parse_hello({}).ok());
  const std::vector<std::function<void(Hello&)>> breaks = {
      [](Hello& hello) { hello.version = kWireVersion + 1; },
      [](Hello& hello) { hello.version = 0; },
      [](Hello& hello) { hello.connections = 0; },
      [](Hello& hello) { hello.connections = limits::kMaxConnectionsPerLink + 1; },
      [](Hello& hello) { hello.connection_index = hello.connections; },
      [](Hello& hello) { hello.connection_index = UINT32_MAX; }};
  for (const auto& apply : breaks) {
    Hello hello = some_hello();
    apply(hello);
    EXPECT_FALSE(parse_hello(encode_hello(hello)).ok());
  }
  for (const std::size_t reserved : {13u, 15u, 96u, 103u, 104u, 108u, 111u}) {
    HelloBytes bad = good;
    bad[reserved] = std::byte{1};  // from 96 on only a repair may have some
    EXPECT_FALSE(parse_hello(bad).ok()) << reserved;
  }
  for (const std::uint32_t flags : {kHelloGone, 8u, 0x80000000u}) {
    Hello hello = some_hello();
    hello.flags = flags;
    EXPECT_FALSE(parse_hello(encode_hello(hello)).ok()) << flags;
  }
}

TEST(Greeting, IsAHelloOfTheTypeAskedFor) {
  const GreetingBytes bytes = encode_greeting(FrameType::hello, some_hello());
  ASSERT_TRUE(parse_greeting(FrameType::hello, bytes).ok());
  EXPECT_EQ(parse_greeting(FrameType::hello, bytes).value(), some_hello());
  EXPECT_FALSE(parse_greeting(FrameType::hello_ack, bytes).ok());
  EXPECT_FALSE(parse_greeting(FrameType::hello, std::span(bytes).first(159)).ok());
}

TEST(Greeting, SecretsAreComparedWhole) {
  Secret a{};
  Secret b{};
  EXPECT_TRUE(same_secret(a, b));
  for (std::size_t i = 0; i < a.size(); ++i) {
    b = a;
    b[i] = 1;
    EXPECT_FALSE(same_secret(a, b)) << i;
  }
  EXPECT_NE(draw_nonce(), draw_nonce());
}

TEST(Description, RoundTrips) {
  for (const OpKind kind :
       {OpKind::all_reduce, OpKind::broadcast, OpKind::barrier, OpKind::exchange}) {
    OpDescription description = some_description();
    description.kind = kind;
    const auto parsed = parse_description(encode_description(description));
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    EXPECT_EQ(parsed.value(), description);
  }
}

TEST(Description, RefusesWhatBreaksARule) {
  const DescriptionBytes good = encode_description(some_description());
  EXPECT_FALSE(parse_description(std::span(good).first(47)).ok());
  const std::vector<std::pair<std::size_t, int>> breaks = {
      {0, 0}, {0, 10}, {1, 6}, {2, 0}, {2, 9}, {3, 6}, {20, 10}, {21, 2}, {22, 1}, {23, 1}};
  for (const auto& [offset, value] : breaks) {
    DescriptionBytes bad = good;
    bad[offset] = static_cast<std::byte>(value);
    EXPECT_FALSE(parse_description(bad).ok()) << "offset " << offset;
  }
  const std::vector<std::function<void(OpDescription&)>> absurd = {
      [](OpDescription& it) { it.count = limits::kMaxVectorBytes / 4 + 1; },
      [](OpDescription& it) { it.count = UINT64_MAX; },
      [](OpDescription& it) { it.chunk_bytes = limits::kMaxPayload + 1; },
      [](OpDescription& it) { it.root = limits::kMaxMembers; },
      [](OpDescription& it) { it.weight = -1; },
      [](OpDescription& it) { it.weight = std::numeric_limits<double>::infinity(); },
      [](OpDescription& it) { it.weight = std::numeric_limits<double>::quiet_NaN(); }};
  for (const auto& apply : absurd) {
    OpDescription description = some_description();
    apply(description);
    EXPECT_FALSE(parse_description(encode_description(description)).ok());
  }
}

// Random bytes never crash, and what is accepted says the same when it is encoded again.
TEST(Frames, RandomBytesAreRefusedOrRoundTrip) {
  std::mt19937 random(20'231'108);
  std::uniform_int_distribution<int> byte(0, 255);
  std::vector<std::byte> bytes(160);
  for (int round = 0; round < 50'000; ++round) {
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::byte>(byte(random)); });
    if (round % 2 == 0) {  // near misses: a good frame with a few bytes changed
      const HeaderBytes good = encode_header(some_header());
      std::copy(good.begin(), good.end(), bytes.begin());
      bytes[static_cast<std::size_t>(byte(random)) % 48] = static_cast<std::byte>(byte(random));
    }
    const auto header = parse_header(bytes);
    if (header.ok()) {
      const HeaderBytes again = encode_header(header.value());
      EXPECT_TRUE(std::equal(again.begin(), again.end(), bytes.begin()));
    }
    (void)parse_hello(std::span(bytes).first(kHelloBytes));
    (void)parse_description(std::span(bytes).first(kDescriptionBytes));
    (void)parse_greeting(FrameType::hello, std::span(bytes).first(kGreetingBytes));
  }
}

}  // namespace
}  // namespace reef
