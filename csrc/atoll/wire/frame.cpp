#include "atoll/wire/frame.h"

#include <string>

#include "atoll/base/endian.h"
#include "atoll/base/limits.h"
#include "atoll/wire/description.h"

namespace reef {

namespace {

constexpr std::byte kMagic0{0x41};
constexpr std::byte kMagic1{0x54};
constexpr std::byte kFrameVersion{1};

Error refuse(std::string what) { return Error{Code::protocol, 0, std::move(what)}; }

bool known_type(std::uint8_t type) {
  return type >= static_cast<std::uint8_t>(FrameType::hello) &&
         type <= static_cast<std::uint8_t>(FrameType::relay_answer);
}

struct LengthRange {
  std::size_t low;
  std::size_t high;
};

LengthRange lengths_of(FrameType type) {
  switch (type) {
    case FrameType::hello:
    case FrameType::hello_ack:
    case FrameType::relay_ask:
    case FrameType::relay_answer: return {kHelloBytes, kHelloBytes};
    case FrameType::relay_call: return {kRelayCallBytes, kRelayCallBytes};
    case FrameType::start: return {kDescriptionBytes, kDescriptionBytes};
    case FrameType::state_request:
    case FrameType::state_nack: return {8, 8};
    case FrameType::data:
    case FrameType::state_data: return {0, limits::kMaxPayload};
    case FrameType::probe: return {0, limits::kMaxProbePayload};
    case FrameType::probe_reply: return {kProbeReplyBytes, kProbeReplyBytes};
    case FrameType::heartbeat:
    case FrameType::done:
    case FrameType::bye: return {0, 0};
  }
  return {0, 0};
}

}  // namespace

HeaderBytes encode_header(const FrameHeader& header) {
  HeaderBytes bytes{};
  bytes[0] = kMagic0;
  bytes[1] = kMagic1;
  bytes[2] = kFrameVersion;
  bytes[3] = static_cast<std::byte>(header.type);
  store_le(bytes.data() + 4, header.phase);
  store_le(bytes.data() + 8, header.channel);
  store_le(bytes.data() + 12, header.length);
  store_le(bytes.data() + 16, header.epoch);
  store_le(bytes.data() + 24, header.sequence);
  store_le(bytes.data() + 32, header.offset);
  store_le(bytes.data() + 40, header.sender_rank);
  return bytes;
}

Result<FrameHeader> parse_header(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) {
    return refuse("a frame header has 48 bytes, got " + std::to_string(bytes.size()));
  }
  const std::byte* at = bytes.data();
  if (at[0] != kMagic0 || at[1] != kMagic1) {
    return refuse("a frame does not begin with the magic bytes");
  }
  if (at[2] != kFrameVersion) {
    return refuse("a frame has version " + std::to_string(std::to_integer<int>(at[2])) +
                  ", this side speaks 1");
  }
  const auto type = std::to_integer<std::uint8_t>(at[3]);
  if (!known_type(type)) {
    return refuse("a frame has the unknown type " + std::to_string(type));
  }
  if (load_le<std::uint16_t>(at + 6) != 0 || load_le<std::uint32_t>(at + 44) != 0) {
    return refuse("a frame has flags or reserved bits set");
  }
  FrameHeader header;
  header.type = static_cast<FrameType>(type);
  header.phase = load_le<std::uint16_t>(at + 4);
  header.channel = load_le<std::uint32_t>(at + 8);
  header.length = load_le<std::uint32_t>(at + 12);
  header.epoch = load_le<std::uint64_t>(at + 16);
  header.sequence = load_le<std::uint64_t>(at + 24);
  header.offset = load_le<std::uint64_t>(at + 32);
  header.sender_rank = load_le<std::uint32_t>(at + 40);
  const LengthRange range = lengths_of(header.type);
  if (header.length < range.low || header.length > range.high) {
    return refuse("a frame of type " + std::to_string(type) + " claims a payload of " +
                  std::to_string(header.length) + " bytes");
  }
  return header;
}

HelloBytes encode_hello(const Hello& hello) {
  HelloBytes bytes{};
  store_le(bytes.data(), hello.version);
  store_le(bytes.data() + 4, hello.connection_index);
  store_le(bytes.data() + 8, hello.connections);
  store_le(bytes.data() + 12, hello.flags);
  for (std::size_t i = 0; i < 16; ++i) {
    bytes[16 + i] = static_cast<std::byte>(hello.sender.bytes[i]);
    bytes[32 + i] = static_cast<std::byte>(hello.receiver.bytes[i]);
    bytes[48 + i] = static_cast<std::byte>(hello.nonce[i]);
  }
  for (std::size_t i = 0; i < 32; ++i) {
    bytes[64 + i] = static_cast<std::byte>(hello.secret[i]);
  }
  store_le(bytes.data() + 96, hello.received);
  store_le(bytes.data() + 104, hello.attempt);
  return bytes;
}

Result<Hello> parse_hello(std::span<const std::byte> bytes) {
  if (bytes.size() != kHelloBytes) {
    return refuse("a hello has 112 bytes, got " + std::to_string(bytes.size()));
  }
  const std::byte* at = bytes.data();
  Hello hello;
  hello.version = load_le<std::uint32_t>(at);
  hello.connection_index = load_le<std::uint32_t>(at + 4);
  hello.connections = load_le<std::uint32_t>(at + 8);
  if (hello.version != kWireVersion) {
    return refuse("a hello speaks version " + std::to_string(hello.version) +
                  ", this side speaks " + std::to_string(kWireVersion));
  }
  hello.flags = load_le<std::uint32_t>(at + 12);
  hello.received = load_le<std::uint64_t>(at + 96);
  hello.attempt = load_le<std::uint32_t>(at + 104);
  constexpr std::uint32_t kFlags = kHelloChecksums | kHelloRepair | kHelloGone;
  if ((hello.flags & ~kFlags) != 0 || load_le<std::uint32_t>(at + 108) != 0) {
    return refuse("a hello has reserved bits set");
  }
  if ((hello.flags & kHelloRepair) == 0 &&
      (hello.received != 0 || hello.attempt != 0 || (hello.flags & kHelloGone) != 0)) {
    return refuse("a hello speaks of a repair, and is none");
  }
  if (hello.connections == 0 || hello.connections > limits::kMaxConnectionsPerLink ||
      hello.connection_index >= hello.connections) {
    return refuse("a hello names connection " + std::to_string(hello.connection_index) + " of " +
                  std::to_string(hello.connections));
  }
  for (std::size_t i = 0; i < 16; ++i) {
    hello.sender.bytes[i] = std::to_integer<std::uint8_t>(at[16 + i]);
    hello.receiver.bytes[i] = std::to_integer<std::uint8_t>(at[32 + i]);
    hello.nonce[i] = std::to_integer<std::uint8_t>(at[48 + i]);
  }
  for (std::size_t i = 0; i < 32; ++i) {
    hello.secret[i] = std::to_integer<std::uint8_t>(at[64 + i]);
  }
  return hello;
}

}  // namespace reef
