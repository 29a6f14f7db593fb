// The data plane's frames (docs/wire.md). Pure functions: bytes in, values or errors out. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"

namespace reef {

inline constexpr std::size_t kHeaderBytes = 48;
// A PROBE_REPLY's payload.
inline constexpr std::size_t kProbeReplyBytes = 16;
// A RELAY_CALL's: who asks, and the nonce of the call.
inline constexpr std::size_t kRelayCallBytes = 32;
inline constexpr std::uint32_t kWireVersion = 3;

enum class FrameType : std::uint8_t {
  hello = 1,
  hello_ack = 2,
  heartbeat = 3,
  start = 4,
  data = 5,
  done = 6,
  state_request = 7,
  state_data = 8,
  state_nack = 9,
  bye = 10,
  probe = 11,
  probe_reply = 12,
  relay_call = 13,    // a relay to the peer that somebody asks for
  relay_ask = 14,     // in place of a HELLO: bring me to a peer
  relay_answer = 15,  // in place of a HELLO: here I am, for the call with this nonce
};

struct FrameHeader {
  FrameType type = FrameType::heartbeat;
  std::uint16_t phase = 0;
  std::uint32_t channel = 0;
  std::uint32_t length = 0;  // payload bytes
  Epoch epoch = 0;
  Sequence sequence = 0;
  std::uint64_t offset = 0;
  Rank sender_rank = 0;
  bool operator==(const FrameHeader&) const = default;
};

using HeaderBytes = std::array<std::byte, kHeaderBytes>;
[[nodiscard]] HeaderBytes encode_header(const FrameHeader& header);
// Refuses: fewer than 48 bytes, bad magic or version, unknown type, flags or reserved bits set, a
// length that is absurd for the type.
Result<FrameHeader> parse_header(std::span<const std::byte> bytes);

struct Hello {
  std::uint32_t version = kWireVersion;
  std::uint32_t connection_index = 0;
  std::uint32_t connections = 1;
  std::uint32_t flags = 0;  // kHello...
  PeerId sender;
  PeerId receiver;
  std::array<std::uint8_t, 16> nonce{};
  std::array<std::uint8_t, 32> secret{};
  std::uint64_t received = 0;  // repair: the frames of this slot that the sender has received whole
  std::uint32_t attempt = 0;   // repair: grows with every attempt for this slot
  bool operator==(const Hello&) const = default;
};
// In HELLO: frames shall carry checksums. In HELLO_ACK: they do.
inline constexpr std::uint32_t kHelloChecksums = 1;
// This connection takes the place of one that was lost.
inline constexpr std::uint32_t kHelloRepair = 2;
// Only in HELLO_ACK, to a repair: the link is over here.
inline constexpr std::uint32_t kHelloGone = 4;
inline constexpr std::size_t kHelloBytes = 112;
using HelloBytes = std::array<std::byte, kHelloBytes>;
[[nodiscard]] HelloBytes encode_hello(const Hello& hello);
Result<Hello> parse_hello(std::span<const std::byte> bytes);

}  // namespace reef
