// Identities: values, comparable and hashable. Any thread.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

namespace atoll {

// One incarnation of one training process. Random, never reused.
struct PeerId {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const PeerId&) const = default;
  [[nodiscard]] std::string hex() const;
  [[nodiscard]] std::string shorthand() const;  // first 8 hex digits, for messages
};

using Epoch = std::uint64_t;
using Channel = std::uint32_t;
using Sequence = std::uint64_t;
using Rank = std::uint32_t;
// Names one submitted op inside one engine; never reused. 0 is none.
using OpId = std::uint64_t;

}  // namespace atoll

template <>
struct std::hash<atoll::PeerId> {
  std::size_t operator()(const atoll::PeerId& id) const noexcept;
};
