// The handshake's bytes and its judgement (docs/wire.md), without sockets. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/wire/frame.h"

namespace reef {

using Secret = std::array<std::uint8_t, 32>;
using Nonce = std::array<std::uint8_t, 16>;

// A HELLO or HELLO_ACK with its frame header.
inline constexpr std::size_t kGreetingBytes = kHeaderBytes + kHelloBytes;
using GreetingBytes = std::array<std::byte, kGreetingBytes>;

[[nodiscard]] GreetingBytes encode_greeting(FrameType type, const Hello& hello);
// Refuses anything but a well-formed greeting of this type.
Result<Hello> parse_greeting(FrameType type, std::span<const std::byte> bytes);

// In constant time, so that a stranger cannot guess a secret byte by byte.
[[nodiscard]] bool same_secret(const Secret& a, const Secret& b);
[[nodiscard]] Nonce draw_nonce();

}  // namespace reef
