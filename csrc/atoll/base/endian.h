// Little-endian integers at a place in a byte buffer, whatever the machine's own order. The caller
// has checked the bounds. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace reef {

template <typename T>
void store_le(std::byte* at, T value) {
  static_assert(std::is_unsigned_v<T>);
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    at[i] = static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i));
  }
}

template <typename T>
[[nodiscard]] T load_le(const std::byte* at) {
  static_assert(std::is_unsigned_v<T>);
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(at[i])) << (8 * i);
  }
  return static_cast<T>(value);
}

}  // namespace reef
