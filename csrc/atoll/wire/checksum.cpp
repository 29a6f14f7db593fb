#include "atoll/wire/checksum.h"

#include <algorithm>

#include "atoll/base/endian.h"
#include "atoll/wire/crc32c.h"

namespace reef {

namespace {

constexpr std::size_t kOwnBits = 6;
constexpr std::size_t kAllBits = 44;


}  // namespace

void seal(HeaderBytes& header, std::span<const std::byte> payload) {
  store_le(header.data() + kOwnBits, std::uint16_t{0});
  store_le(header.data() + kAllBits, std::uint32_t{0});
  const std::uint32_t so_far = crc32c(header);
  store_le(header.data() + kOwnBits, static_cast<std::uint16_t>(so_far & 0xffff));
  store_le(header.data() + kAllBits, crc32c(payload, so_far));
}

bool unseal(std::span<const std::byte, kHeaderBytes> bytes, Sealed& sealed) {
  std::copy(bytes.begin(), bytes.end(), sealed.header.begin());
  const auto own = load_le<std::uint16_t>(sealed.header.data() + kOwnBits);
  sealed.expected = load_le<std::uint32_t>(sealed.header.data() + kAllBits);
  store_le(sealed.header.data() + kOwnBits, std::uint16_t{0});
  store_le(sealed.header.data() + kAllBits, std::uint32_t{0});
  sealed.so_far = crc32c(sealed.header);
  return own == static_cast<std::uint16_t>(sealed.so_far & 0xffff);
}

bool Sealed::holds(std::span<const std::byte> payload) const {
  return crc32c(payload, so_far) == expected;
}

}  // namespace reef
