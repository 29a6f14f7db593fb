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
inline constexpr std::uint32_t kWireVersion = 1;

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
  PeerId sender;
  PeerId receiver;
  std::array<std::uint8_t, 16> nonce{};
  std::array<std::uint8_t, 32> secret{};
  bool operator==(const Hello&) const = default;
};
inline constexpr std::size_t kHelloBytes = 104;
using HelloBytes = std::array<std::byte, kHelloBytes>;
[[nodiscard]] HelloBytes encode_hello(const Hello& hello);
Result<Hello> parse_hello(std::span<const std::byte> bytes);

enum class OpKind : std::uint8_t { all_reduce = 1, broadcast = 2, barrier = 3, exchange = 4 };
enum class Plan : std::uint8_t { none = 0, ring = 1, direct = 2 };
enum class DType : std::uint8_t { f32 = 1 };
enum class Reduction : std::uint8_t { none = 0, sum = 1 };

// What members must agree on for one op: the START payload.
struct OpDescription {
  OpKind kind = OpKind::barrier;
  Plan plan = Plan::none;
  DType dtype = DType::f32;
  Reduction reduction = Reduction::none;
  Rank root = 0;
  std::uint64_t count = 0;  // elements
  std::uint32_t chunk_bytes = 0;
  bool operator==(const OpDescription&) const = default;
};
inline constexpr std::size_t kDescriptionBytes = 48;
using DescriptionBytes = std::array<std::byte, kDescriptionBytes>;
[[nodiscard]] DescriptionBytes encode_description(const OpDescription& description);
Result<OpDescription> parse_description(std::span<const std::byte> bytes);

[[nodiscard]] std::size_t dtype_bytes(DType dtype);

}  // namespace reef
