// Scalar pieces of the portable kernels: rounding, packing, headers. They define the bits.
#pragma once

#include "atoll/base/endian.h"
#include "atoll/codec/format.h"

namespace reef::codec {
namespace {

// What a block's encoder needs beside the values.
struct BlockNoise {
  Noise noise;
  std::uint32_t first_lane = 0;  // of the block's first element
  [[nodiscard]] std::uint32_t at(std::size_t i) const {
    return noise_bits(noise, first_lane + static_cast<std::uint32_t>(i));
  }
};

// To the nearest integer, ties to even, for |y| < 2^22: adding 1.5 * 2^23 leaves no fraction bits.
inline std::int32_t nearest_even(float y) {
  return static_cast<std::int32_t>(float_bits(y + 0x1.8p23f)) - 0x4b40'0000;
}
inline std::int32_t floor_of(float y) {
  const auto truncated = static_cast<std::int32_t>(y);
  return truncated - (y < static_cast<float>(truncated) ? 1 : 0);
}
// Stochastic: floor(y + u), u uniform in [0, 1) with 24 bits.
inline std::int32_t stochastic_floor(float y, std::uint32_t random) {
  return floor_of(y + static_cast<float>(random >> 8) * 0x1p-24f);
}
inline std::int32_t clamped(std::int32_t value, std::int32_t low, std::int32_t high) {
  return value < low ? low : value > high ? high : value;
}

inline bool finite(float x) {
  return (float_bits(x) & kAbsMask) < kInfBits;
}

// Largest magnitude of the finite values; how many are not finite.
struct Extent {
  float amax = 0.f;
  float low = 0.f;
  float high = 0.f;
  std::uint64_t non_finite = 0;
};
inline Extent extent_of(const float* x, std::size_t n) {
  Extent extent;
  bool any = false;
  for (std::size_t i = 0; i < n; ++i) {
    if (!finite(x[i])) {
      ++extent.non_finite;
      continue;
    }
    extent.amax = at_least(extent.amax, bits_float(float_bits(x[i]) & kAbsMask));
    extent.low = any ? at_most(x[i], extent.low) : x[i];
    extent.high = any ? at_least(x[i], extent.high) : x[i];
    any = true;
  }
  return extent;
}

inline void put_float(std::byte* at, float value) {
  store_le(at, float_bits(value));
}
inline float get_float(const std::byte* at) {
  return bits_float(load_le<std::uint32_t>(at));
}

// Narrow codes (format.h, code_bytes): where element i's code lies.
template <std::size_t kWidth>
struct Place {
  std::size_t byte;
  unsigned shift;
  explicit Place(std::size_t i)
      : byte(i / group_elements(kWidth) * 16 + i % 16),
        shift(static_cast<unsigned>(i % group_elements(kWidth) / 16 * kWidth)) {}
};
template <std::size_t kWidth>
void clear_codes(std::byte* codes, std::size_t n) {
  for (std::size_t i = 0; i < code_bytes(kWidth, n); ++i) codes[i] = std::byte{0};
}
// The place must have been cleared.
template <std::size_t kWidth>
void put_code(std::byte* codes, std::size_t i, std::uint32_t code) {
  const Place<kWidth> place(i);
  const std::uint32_t mask = (1u << kWidth) - 1u;
  codes[place.byte] |= static_cast<std::byte>((code & mask) << place.shift);
}
template <std::size_t kWidth>
std::uint32_t get_code(const std::byte* codes, std::size_t i) {
  const Place<kWidth> place(i);
  return std::to_integer<std::uint32_t>(codes[place.byte]) >> place.shift & ((1u << kWidth) - 1u);
}

template <bool kAdd>
void emit(float& out, float value) {
  out = kAdd ? out + value : value;
}

}  // namespace
}  // namespace reef::codec
