// Vectors to encode: each block of another kind, so that all paths of the kernels meet.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "atoll/codec/codec.h"

namespace reef::samples {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kMax = std::numeric_limits<float>::max();
inline constexpr float kLeastDenormal = std::numeric_limits<float>::denorm_min();

inline float gaussian(std::mt19937_64& random, float scale) {
  return std::normal_distribution<float>(0.f, 1.f)(random) * scale;
}

inline float finite_bits(std::mt19937_64& random) {
  for (;;) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::isfinite(x)) return x;
  }
}

// Values on and beside what the formats can tell apart.
inline float edge(std::mt19937_64& random) {
  // clang-format off
  static const float kEdges[] = {
      0.f, -0.f, kLeastDenormal, 0x1.fffffcp-127f, 0x1p-126f, kMax, 0x1.fep127f, 0x1p127f,
      0x1.ffffp127f, 65504.f, 65519.996f, 65520.f, 0x1p-14f, 0x1.ffcp-15f, 0x1p-24f, 0x1p-25f,
      0x1.8p-24f, 0x1p-118f, 0x1p-119f, 1.f, 127.f, 63.5f, 64.5f, 7.f, 3.5f, 448.f, 256.f, 0x1p-9f,
      0x1p-10f, 0x1.6a09e6p0f, 0x1.6a09e8p0f, 0x1.6a09e6p-7f, 0x1.6a09e8p-7f, 0x1.008p0f,
      0x1.018p0f, 0x1.01p0f, 0x1.03p0f};
  // clang-format on
  const float x = kEdges[random() % std::size(kEdges)];
  return random() % 2 == 0 ? x : -x;
}

inline float special(std::mt19937_64& random) {
  switch (random() % 5) {
    case 0:
      return kInf;
    case 1:
      return -kInf;
    case 2:
      return std::bit_cast<float>(0x7f80'0001u);  // signalling NaN
    case 3:
      return std::bit_cast<float>(0xffc1'2345u);
    default:
      return kNan;
  }
}

inline constexpr std::uint64_t kKinds = 13;

inline float value(std::mt19937_64& random, std::uint64_t kind, std::size_t i) {
  switch (kind) {
    case 0:
      return gaussian(random, 1.f);
    case 1:
      return gaussian(random, 1e-4f);
    case 2:
      return finite_bits(random);
    case 3:
      return edge(random);
    case 4:
      return std::bit_cast<float>(static_cast<std::uint32_t>(random() & 0x807f'ffffu));
    case 5:
      return i % 2 == 0 ? 0.f : -0.f;
    case 6:
      return gaussian(random, 1.f) * 0x1p125f;
    case 7:
      return 3.25f;
    case 8:
      return static_cast<float>(static_cast<int>(random() % 509) - 254) * 0.5f;  // ties
    case 9:
      return random() % 100 == 0 ? special(random) : gaussian(random, 2.f);
    case 10:
      return random() % 3 == 0 ? special(random) : edge(random);
    case 11:
      return 1000.f + gaussian(random, 1e-3f);
    default:
      return gaussian(random, 1.f) * 0x1p-120f;
  }
}

// `kind` for all blocks, or another one for each block from `kind` on.
inline std::vector<float> mixture(std::size_t count, std::uint64_t seed, std::uint64_t kind = 0,
                                  bool one_kind = false) {
  std::mt19937_64 random(seed);
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) {
    x[i] = value(random, one_kind ? kind : (kind + i / 64) % kKinds, i);
  }
  return x;
}

inline std::vector<CodecId> all_codecs() {
  std::vector<CodecId> ids;
  for (std::size_t i = 0; i < kCodecs; ++i) ids.push_back(static_cast<CodecId>(i));
  return ids;
}

// Encoded and decoded by what the processor is best at.
inline std::vector<float> through(const Codec& codec, const std::vector<float>& x,
                                  EncodeReport* report = nullptr) {
  std::vector<std::byte> bytes(encoded_bytes(codec.id, x.size()));
  const EncodeReport got = encode(codec, x, bytes);
  if (report != nullptr) *report = got;
  std::vector<float> y(x.size());
  decode(codec.id, bytes, y);
  return y;
}

}  // namespace reef::samples
