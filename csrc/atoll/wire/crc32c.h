// CRC-32C (Castagnoli), by the processor's own instruction where it has one; the same bits everywhere.
// Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace reef {

// Of `bytes`, going on from the CRC of what came before them (0: nothing did).
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);
// The same without special instructions: what others are tested against.
[[nodiscard]] std::uint32_t crc32c_portable(std::span<const std::byte> bytes,
                                            std::uint32_t before = 0);

}  // namespace reef
