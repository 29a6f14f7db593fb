// Time is an argument: state machines get `now`, shells read the clock.
#pragma once

#include <cstdint>

namespace reef {

// Nanoseconds on a monotonic clock.
using Nanos = std::int64_t;
inline constexpr Nanos kMicrosecond = 1'000;
inline constexpr Nanos kMillisecond = 1'000'000;
inline constexpr Nanos kSecond = 1'000'000'000;
inline constexpr Nanos kNever = INT64_MAX;

[[nodiscard]] Nanos monotonic_now();

}  // namespace reef
