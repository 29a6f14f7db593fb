// For tests of single ops: buffers, and which frames may go.
#pragma once

#include <algorithm>
#include <vector>

#include "loopback.h"

namespace reef::testing {

inline Buffers numbers(std::size_t count, float value) {
  return {std::vector<float>(count, value), std::vector<float>(count, -1.0F)};
}
inline bool all(const std::vector<float>& values, float value) {
  return std::all_of(values.begin(), values.end(), [value](float x) { return x == value; });
}
inline constexpr auto everything = [](const Frame&) { return true; };
inline constexpr auto no_done = [](const Frame& frame) { return frame.header.type != FrameType::done; };

}  // namespace reef::testing
