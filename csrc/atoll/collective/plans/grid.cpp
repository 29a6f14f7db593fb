#include "atoll/collective/plans/grid.h"

#include <cstring>

namespace reef {

std::span<const float> as_floats(std::span<const std::byte> payload, std::vector<float>& scratch) {
  const std::size_t count = payload.size() / sizeof(float);
  if (reinterpret_cast<std::uintptr_t>(payload.data()) % alignof(float) == 0) {
    return {reinterpret_cast<const float*>(payload.data()), count};
  }
  scratch.resize(count);
  std::memcpy(scratch.data(), payload.data(), count * sizeof(float));
  return scratch;
}

std::span<float> as_floats(std::span<std::byte> aligned) {
  return {reinterpret_cast<float*>(aligned.data()), aligned.size() / sizeof(float)};
}

void settle_in(std::span<std::byte> place, std::span<const std::byte> payload) {
  if (payload.data() == place.data() || payload.empty()) return;
  std::memcpy(place.data(), payload.data(), payload.size());
}

}  // namespace reef
