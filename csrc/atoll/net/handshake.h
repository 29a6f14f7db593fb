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
// Only its header, which may be here before the rest.
Result<FrameHeader> parse_greeting_header(std::span<const std::byte> bytes);
// Refuses anything but a well-formed greeting of this type.
Result<Hello> parse_greeting(FrameType type, std::span<const std::byte> bytes);

// Whether a HELLO is one to `self` from another peer that knows the secret.
[[nodiscard]] bool greets(const Hello& hello, const PeerId& self, const Secret& secret);
// Whether a HELLO_ACK is the answer to this HELLO, from the peer that was meant.
[[nodiscard]] bool answers(const Hello& ack, const Hello& hello);
// In constant time, so that a stranger cannot guess a secret byte by byte.
[[nodiscard]] bool same_secret(const Secret& a, const Secret& b);
[[nodiscard]] Nonce draw_nonce();

}  // namespace reef
