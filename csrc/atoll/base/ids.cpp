#include "atoll/base/ids.h"

#include <cstring>

namespace reef {

namespace {

std::string hex_of(const PeerId& id, std::size_t bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    text.push_back(kDigits[id.bytes[i] >> 4]);
    text.push_back(kDigits[id.bytes[i] & 0x0f]);
  }
  return text;
}

}  // namespace

std::string PeerId::hex() const { return hex_of(*this, bytes.size()); }
std::string PeerId::shorthand() const { return hex_of(*this, 4); }

}  // namespace reef

// Ids are random, but they are drawn by peers: mix both halves, so that ids that share eight
// bytes do not share a bucket.
std::size_t std::hash<reef::PeerId>::operator()(const reef::PeerId& id) const noexcept {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  std::memcpy(&low, id.bytes.data(), 8);
  std::memcpy(&high, id.bytes.data() + 8, 8);
  std::uint64_t mixed = low ^ (high * 0x9e3779b97f4a7c15u);
  mixed ^= mixed >> 32;
  return static_cast<std::size_t>(mixed * 0xd6e8feb86659fd93u);
}
