// CRC-32C against known values, and the instruction against the tables; the checks of a frame.
#include <gtest/gtest.h>

#include <random>
#include <string_view>
#include <vector>

#include "atoll/net/handshake.h"
#include "atoll/wire/checksum.h"
#include "atoll/wire/crc32c.h"

namespace reef {
namespace {

std::vector<std::byte> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(Crc32c, HasTheValuesOfRfc3720) {
  std::vector<std::byte> bytes(32, std::byte{0});
  EXPECT_EQ(crc32c(bytes), 0x8a9136aau);
  bytes.assign(32, std::byte{0xff});
  EXPECT_EQ(crc32c(bytes), 0x62a8ab43u);
  for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(bytes), 0x46dd794eu);
  for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(31 - i);
  EXPECT_EQ(crc32c(bytes), 0x113fdb5cu);
  const std::string_view digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(digits))), 0xe3069283u);
  EXPECT_EQ(crc32c_portable(std::as_bytes(std::span(digits))), 0xe3069283u);
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(Crc32c, IsTheSameByAllWaysAndInPieces) {
  const std::vector<std::byte> bytes = random_bytes(5'000, 1);
  for (std::size_t first = 0; first < 9; ++first) {
    for (const std::size_t count : {0u, 1u, 7u, 8u, 9u, 63u, 64u, 1'000u, 4'900u}) {
      const auto part = std::span(bytes).subspan(first, count);
      const std::uint32_t whole = crc32c_portable(part);
      EXPECT_EQ(crc32c(part), whole);
      EXPECT_EQ(crc32c(part.subspan(count / 3), crc32c(part.first(count / 3))), whole);
    }
  }
}

TEST(Checksum, EveryFlippedBitIsNoticed) {
  const std::vector<std::byte> payload = random_bytes(40, 2);
  FrameHeader header;
  header.type = FrameType::data;
  header.length = 40;
  header.offset = 0x1234567890;
  HeaderBytes sealed_header = encode_header(header);
  seal(sealed_header, payload);
  Sealed sealed;
  ASSERT_TRUE(unseal(sealed_header, sealed));
  EXPECT_TRUE(sealed.holds(payload));
  EXPECT_EQ(sealed.header, encode_header(header));
  seal(sealed_header, payload);  // again, as when it is sent again
  ASSERT_TRUE(unseal(sealed_header, sealed) && sealed.holds(payload));
  for (std::size_t bit = 0; bit < 8 * (kHeaderBytes + payload.size()); ++bit) {
    HeaderBytes bad_header = sealed_header;
    std::vector<std::byte> bad_payload = payload;
    const auto turned = static_cast<std::byte>(1u << (bit % 8));
    const bool in_header = bit / 8 < kHeaderBytes;
    (in_header ? bad_header[bit / 8] : bad_payload[bit / 8 - kHeaderBytes]) ^= turned;
    const bool header_holds = unseal(bad_header, sealed);
    // Where a payload goes is known to be right before it is placed.
    EXPECT_EQ(header_holds, !in_header || bit / 8 >= 44) << bit;
    EXPECT_FALSE(header_holds && sealed.holds(bad_payload)) << bit;
  }
}

TEST(Checksum, GreetingsAlwaysCarryIt) {
  Hello hello;
  hello.flags = kHelloRepair;
  hello.received = 77;
  const GreetingBytes good = encode_greeting(FrameType::hello, hello);
  ASSERT_TRUE(parse_greeting(FrameType::hello, good).ok());
  for (std::size_t i = 0; i < good.size(); ++i) {
    GreetingBytes bad = good;
    bad[i] ^= std::byte{0x10};
    EXPECT_FALSE(parse_greeting(FrameType::hello, bad).ok()) << i;
  }
}

}  // namespace
}  // namespace reef
