// What all kernels share: constants, sizes, and the scalar arithmetic of block headers and noise.
// docs/codecs.md explains them.
//
// Everything here has internal linkage on purpose. The files of the vector kernels are compiled for
// processors that the machine may not have; a function they shared with the rest of the program
// (inline, or a template) might be linked in their version.
#pragma once

#include <cstddef>
#include <cstdint>

#include "atoll/codec/codec.h"

namespace reef::codec {
namespace {

constexpr std::uint32_t kAbsMask = 0x7fff'ffffu;
constexpr std::uint32_t kInfBits = 0x7f80'0000u;
constexpr float kInfinity = __builtin_inff();
constexpr std::uint32_t kNanBits = 0x7fc0'0000u;  // the NaN that every decoder writes

// A block's magnitude (amax, or half its range) is brought into [kTiny, kHuge] before its scale is
// computed, unless it is 0. Above kTiny every scale, and its inverse, is a normal number; below
// kHuge no decoded value rounds to infinity.
constexpr float kTiny = 0x1p-118f;
constexpr float kHuge = 0x1.ffffp127f;

constexpr std::uint32_t kBf16Largest = 0x7f7f'0000u;  // as fp32 bits
constexpr std::uint32_t kFp16Largest = 0x477f'e000u;  // 65504
constexpr std::uint32_t kFp8Largest = 0x7f70'0000u;   // 15/8 * 2^127: above, it may round to 2^128

// fp4: 2^23 minus the mantissa of the first float above sqrt(2). Added to a float's bits, it
// carries into the exponent exactly when the value is nearer, by logarithm, to the next power of
// two.
constexpr std::uint32_t kLogRound = 0x0080'0000u - 0x0035'04f4u;
// clang-format off
constexpr float kFp4Levels[16] = {
    0.f, 0x1p-6f, 0x1p-5f, 0x1p-4f, 0x1p-3f, 0x1p-2f, 0x1p-1f, 1.f,
    __builtin_nanf(""), -0x1p-6f, -0x1p-5f, -0x1p-4f, -0x1p-3f, -0x1p-2f, -0x1p-1f, -1.f};
constexpr float kInt4Levels[16] = {
    0.f, 1.f, 2.f, 3.f, 4.f, 5.f, 6.f, 7.f,
    __builtin_nanf(""), -7.f, -6.f, -5.f, -4.f, -3.f, -2.f, -1.f};
// clang-format on

// 2-bit: the outer level is 1.8719 mean absolute values: the uniform four-level quantizer of least
// squared error for a Gaussian (outer level 1.4935 sigma; mean |x| = 0.79788 sigma). The mean is
// taken of |x| * 2^-9, which cannot overflow: 958.4 = 1.8719 * 2^9.
constexpr float kTwoBitShrink = 0x1p-9f;
constexpr float kTwoBitFactor = 958.4f;
constexpr float kThird = 0x1.555556p-2f;

constexpr std::uint32_t float_bits(float value) {
  return __builtin_bit_cast(std::uint32_t, value);
}
constexpr float bits_float(std::uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

// ---- layout -----------------------------------------------------------------------------------

// A scale covers `block` elements: header, then the codes of `width` bits.
struct Layout {
  std::size_t block;
  std::size_t header;
  std::size_t width;
};
constexpr Layout kLayouts[kCodecs] = {
    {kCodecBlock, 0, 32}, {kCodecBlock, 0, 16}, {kCodecBlock, 0, 16}, {kCodecBlock, 4, 8},
    {kCodecBlock, 4, 8},  {kCodecBlock, 8, 8},  {64, 4, 4},           {64, 8, 4},
    {kCodecBlock, 4, 4},  {kCodecBlock, 4, 2}};

constexpr Layout layout_of(CodecId id) {
  return kLayouts[static_cast<std::size_t>(id)];
}

// Narrow codes lie in groups of 16 bytes: byte j of a group holds the codes of its elements j, 16 +
// j, 32 + j ..., from the lowest bits up. The last group of a block ends with its last used byte.
constexpr std::size_t group_elements(std::size_t width) {
  return 128 / width;
}
constexpr std::size_t code_bytes(std::size_t width, std::size_t count) {
  if (width >= 8) return count * (width / 8);
  const std::size_t group = group_elements(width);
  const std::size_t rest = count % group;
  return count / group * 16 + (rest < 16 ? rest : 16);
}
constexpr std::size_t block_bytes(const Layout& layout, std::size_t count) {
  return layout.header + code_bytes(layout.width, count);
}

// ---- headers ----------------------------------------------------------------------------------

constexpr float at_most(float value, float bound) {
  return value < bound ? value : bound;
}
constexpr float at_least(float value, float bound) {
  return value > bound ? value : bound;
}
constexpr float bounded(float magnitude) {
  return at_most(at_least(magnitude, kTiny), kHuge);
}

// Codes q of int8 and int4 stand for middle + q * scale.
struct Grid {
  float scale = 0.f;
  float inverse = 0.f;
  float middle = 0.f;
};
constexpr Grid grid_of(float half, float middle, float largest_code) {
  if (!(half > 0.f)) return {0.f, 0.f, middle};
  half = bounded(half);
  return {half / largest_code, largest_code / half, middle};
}
constexpr Grid symmetric_grid(float amax, float largest_code) {
  return grid_of(amax, 0.f, largest_code);
}
// Halved before they are subtracted, so that the range cannot overflow. Adding 0 makes a middle of
// -0 into +0: instruction sets disagree about the smaller one of -0 and +0.
constexpr Grid minmax_grid(float low, float high, float largest_code) {
  low = at_most(at_least(low, -kHuge), kHuge);
  high = at_most(at_least(high, -kHuge), kHuge);
  const float half = 0.5f * high - 0.5f * low;
  return grid_of(half, (low + half) + 0.f, largest_code);
}

// fp8 and fp4: biased exponent of the power of two at or below amax, at or above it when rounding
// up.
constexpr std::uint32_t exponent_of(float amax, bool up) {
  const std::uint32_t bits = float_bits(at_least(amax, kTiny)) + (up ? 0x007f'ffffu : 0u);
  const std::uint32_t exponent = bits >> 23;
  return exponent < 254 ? exponent : 254;
}
constexpr float power_of_two(std::uint32_t biased) {
  return bits_float(biased << 23);
}
// For an exponent of exponent_of(): 2^7 / 2^exponent, a normal number for all of them.
constexpr float fit_to_128(std::uint32_t exponent) {
  return power_of_two(261 - exponent);
}

// 2-bit, nearest: outer level from the sum of |x| * kTwoBitShrink over `count` elements.
constexpr float two_bit_outer(float sum, float amax, std::size_t count) {
  if (!(amax > 0.f)) return 0.f;
  const float factor = kTwoBitFactor / static_cast<float>(count);
  return bounded(at_most(sum * factor, amax));
}

// A header that is no number decodes to kNanBits throughout the block.
constexpr float sane(float header) {
  return (float_bits(header) & kAbsMask) < kInfBits ? header : bits_float(kNanBits);
}

// ---- noise ------------------------------------------------------------------------------------

// Random bits of element i: noise_bits(noise_of(seed, i / 256), i % 256).
struct Noise {
  std::uint32_t first = 0;
  std::uint32_t second = 0;
};
constexpr std::uint32_t kLaneStep = 0x9e37'79b9u;
constexpr std::uint32_t kMixFirst = 0x7feb'352du;
constexpr std::uint32_t kMixSecond = 0x846c'a68bu;

constexpr Noise noise_of(std::uint64_t seed, std::uint64_t block) {  // SplitMix64
  std::uint64_t z = seed + (block + 1) * 0x9e37'79b9'7f4a'7c15u;
  z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9u;
  z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11ebu;
  z ^= z >> 31;
  return {static_cast<std::uint32_t>(z), static_cast<std::uint32_t>(z >> 32)};
}
constexpr std::uint32_t noise_bits(const Noise& noise, std::uint32_t lane) {
  std::uint32_t z = noise.first + lane * kLaneStep;
  z = (z ^ (z >> 16)) * kMixFirst;
  z = ((z ^ (z >> 15)) + noise.second) * kMixSecond;
  return z ^ (z >> 16);
}

}  // namespace

// One table per file of kernels, indexed by CodecId; the vector ones fall back on the portable.
[[nodiscard]] const CodecKernels& portable_kernels(CodecId id);
[[nodiscard]] const CodecKernels& avx2_kernels(CodecId id);
[[nodiscard]] const CodecKernels& avx512_kernels(CodecId id);
[[nodiscard]] const CodecKernels& neon_kernels(CodecId id);

}  // namespace reef::codec
