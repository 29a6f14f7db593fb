// Identities: values, comparable and hashable. Any thread.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

// All of the core is in the namespace `reef`: the C library declares a function ::atoll (ASCII to
// long long), so that name cannot be a namespace.
namespace reef {

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

}  // namespace reef

template <>
struct std::hash<reef::PeerId> {
  std::size_t operator()(const reef::PeerId& id) const noexcept;
};
