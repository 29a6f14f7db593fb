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

// Of the finite values (all 0 when there are none); how many are not finite. Without branches, so
// that compilers can turn the loop into vector code.
struct Extent {
  float amax = 0.f;
  float low = 0.f;
  float high = 0.f;
  std::uint64_t non_finite = 0;
};
inline Extent extent_of(const float* x, std::size_t n) {
  std::uint32_t amax = 0, finite_count = 0;
  float low = kInfinity, high = -kInfinity;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t magnitude = float_bits(x[i]) & kAbsMask;
    const bool is_finite = magnitude < kInfBits;
    const float below = is_finite ? x[i] : low, above = is_finite ? x[i] : high;
    const std::uint32_t size = is_finite ? magnitude : 0u;
    amax = size > amax ? size : amax;
    low = below < low ? below : low;
    high = above > high ? above : high;
    finite_count += is_finite ? 1u : 0u;
  }
  if (finite_count == 0) return {0.f, 0.f, 0.f, n};
  return {bits_float(amax), low, high, n - finite_count};
}

inline void put_float(std::byte* at, float value) {
  store_le(at, float_bits(value));
}
inline float get_float(const std::byte* at) {
  return bits_float(load_le<std::uint32_t>(at));
}

// Codes of a block, one a byte, to and from their places (format.h, code_bytes).
using Codes = std::uint8_t[kCodecBlock];
template <std::size_t kWidth>
void put_codes(const Codes& codes, std::size_t n, std::byte* out) {
  constexpr std::size_t kGroup = group_elements(kWidth);
  constexpr unsigned kMask = (1u << kWidth) - 1u;
  for (std::size_t first = 0; first < n; first += kGroup, out += 16) {
    for (std::size_t j = 0; j < 16 && first + j < n; ++j) {
      unsigned packed = 0;
      for (std::size_t k = 0; 16 * k < kGroup && first + 16 * k + j < n; ++k) {
        packed |= (codes[first + 16 * k + j] & kMask) << (k * kWidth);
      }
      out[j] = static_cast<std::byte>(packed);
    }
  }
}
template <std::size_t kWidth>
void get_codes(const std::byte* in, std::size_t n, Codes& codes) {
  constexpr std::size_t kGroup = group_elements(kWidth);
  constexpr unsigned kMask = (1u << kWidth) - 1u;
  for (std::size_t i = 0; i < n; ++i) {
    const auto packed = std::to_integer<unsigned>(in[i / kGroup * 16 + i % 16]);
    codes[i] = static_cast<std::uint8_t>(packed >> (i % kGroup / 16 * kWidth) & kMask);
  }
}

template <bool kAdd>
void emit(float& out, float value) {
  out = kAdd ? out + value : value;
}

}  // namespace
}  // namespace reef::codec
