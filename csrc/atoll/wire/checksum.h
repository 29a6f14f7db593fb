// The checks of a frame (docs/wire.md): 16 bits for the header alone, in the field `flags`, because a
// payload is received where its header says before all of it can be checked; and 32 bits for header
// and payload, in the last word. Greetings always carry them, other frames when it was agreed. Pure
// functions. Any thread.
#pragma once

#include <cstdint>
#include <span>

#include "atoll/wire/frame.h"

namespace reef {

// Fills in both.
void seal(HeaderBytes& header, std::span<const std::byte> payload);

// Taken out of a header, which is then as it was before it was sealed; nullopt when the header's own
// bits are wrong.
struct Sealed {
  HeaderBytes header{};
  std::uint32_t expected = 0;
  std::uint32_t so_far = 0;  // the CRC without the payload
  [[nodiscard]] bool holds(std::span<const std::byte> payload) const;
};
[[nodiscard]] bool unseal(std::span<const std::byte, kHeaderBytes> bytes, Sealed& sealed);

}  // namespace reef
