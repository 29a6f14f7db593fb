// Scalar reference of the codecs whose codes are floating-point numbers: fp32, bf16, fp16, fp8,
// fp4.
//
// encode<stochastic>() takes 1 to 256 elements, a whole block or the end of a vector, and writes
// exactly block_bytes() of it; decode<add>() reads them. Non-finite values: NaN becomes the
// format's one NaN; infinity stays infinity where there is one (fp32, bf16, fp16), else it becomes
// NaN.
#pragma once

#include "atoll/codec/scalar.h"

namespace reef::codec {
namespace {

struct Fp32 {
  static constexpr CodecId kId = CodecId::fp32;
  template <bool kStochastic>
  static EncodeReport encode(const float* x, std::size_t n, std::byte* out, const BlockNoise&) {
    EncodeReport report;
    for (std::size_t i = 0; i < n; ++i) {
      put_float(out + 4 * i, x[i]);
      report.non_finite += finite(x[i]) ? 0 : 1;
    }
    return report;
  }
  template <bool kAdd>
  static void decode(const std::byte* in, std::size_t n, float* out) {
    for (std::size_t i = 0; i < n; ++i) emit<kAdd>(out[i], get_float(in + 4 * i));
  }
};

// kDrop mantissa bits go. To nearest, ties to even: adds just under half of the last kept bit, or
// half if that bit is odd. Stochastic: adds kDrop random bits. What carries, carries into the
// exponent.
template <unsigned kDrop, bool kStochastic>
std::uint32_t rounded(std::uint32_t magnitude, std::uint32_t random) {
  constexpr std::uint32_t kBelowHalf = (1u << (kDrop - 1)) - 1u;
  const std::uint32_t add =
      kStochastic ? random & ((1u << kDrop) - 1u) : kBelowHalf + (magnitude >> kDrop & 1u);
  return (magnitude + add) >> kDrop;
}

struct Bf16 {
  static constexpr CodecId kId = CodecId::bf16;
  template <bool kStochastic>
  static EncodeReport encode(const float* x, std::size_t n, std::byte* out,
                             const BlockNoise& noise) {
    EncodeReport report;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t bits = float_bits(x[i]);
      const std::uint32_t magnitude = bits & kAbsMask;
      std::uint32_t code = rounded<16, kStochastic>(magnitude, kStochastic ? noise.at(i) : 0);
      if (magnitude >= kInfBits) {
        ++report.non_finite;
        code = (magnitude > kInfBits ? kNanBits : kInfBits) >> 16;
      } else if (code >= kInfBits >> 16) {
        ++report.saturated;
        code = kBf16Largest >> 16;
      }
      if (magnitude <= kInfBits) code |= bits >> 16 & 0x8000u;
      store_le(out + 2 * i, static_cast<std::uint16_t>(code));
    }
    return report;
  }
  template <bool kAdd>
  static void decode(const std::byte* in, std::size_t n, float* out) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t code = load_le<std::uint16_t>(in + 2 * i);
      emit<kAdd>(out[i], bits_float(code << 16));
    }
  }
};

// A float with kMantissa bits of mantissa, whose least normal number is 2^kLeast; below, it is a
// fixed-point number. Returns exponent and mantissa as one integer, for finite y = |y|.
template <unsigned kMantissa, int kLeast, bool kStochastic>
std::uint32_t small_float(float y, std::uint32_t random) {
  constexpr unsigned kDrop = 23 - kMantissa;
  constexpr std::uint32_t kLeastBiased = static_cast<std::uint32_t>(127 + kLeast);
  constexpr int kMantissaBits = static_cast<int>(kMantissa);
  if (float_bits(y) >= kLeastBiased << 23) {
    return rounded<kDrop, kStochastic>(float_bits(y), random) - ((kLeastBiased - 1) << kMantissa);
  }
  if constexpr (kStochastic) {  // kDrop bits of fraction, to which as many random bits are added
    constexpr float kFixed = bits_float(static_cast<std::uint32_t>(150 - kLeast) << 23);
    return (static_cast<std::uint32_t>(y * kFixed) + (random & ((1u << kDrop) - 1u))) >> kDrop;
  } else {  // the sum's last bit is worth 2^(kLeast - kMantissa), so the addition rounds to it
    constexpr std::uint32_t kAnchor = static_cast<std::uint32_t>(150 + kLeast - kMantissaBits)
                                      << 23;
    return float_bits(y + bits_float(kAnchor)) - kAnchor;
  }
}

struct Fp16 {
  static constexpr CodecId kId = CodecId::fp16;
  template <bool kStochastic>
  static EncodeReport encode(const float* x, std::size_t n, std::byte* out,
                             const BlockNoise& noise) {
    EncodeReport report;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t bits = float_bits(x[i]);
      const std::uint32_t magnitude = bits & kAbsMask;
      std::uint32_t code = 0;
      if (magnitude >= kInfBits) {
        ++report.non_finite;
        code = magnitude > kInfBits ? 0x7e00u : 0x7c00u;
      } else {
        code =
            small_float<10, -14, kStochastic>(bits_float(magnitude), kStochastic ? noise.at(i) : 0);
        if (code >= 0x7c00u) {
          ++report.saturated;
          code = 0x7bffu;
        }
      }
      if (magnitude <= kInfBits) code |= bits >> 16 & 0x8000u;
      store_le(out + 2 * i, static_cast<std::uint16_t>(code));
    }
    return report;
  }
  template <bool kAdd>
  static void decode(const std::byte* in, std::size_t n, float* out) {
    for (std::size_t i = 0; i < n; ++i) {
      emit<kAdd>(out[i], bits_float(widened(load_le<std::uint16_t>(in + 2 * i))));
    }
  }
  // Denormals are exact multiples of 2^-24. A NaN keeps its payload and becomes quiet.
  static std::uint32_t widened(std::uint32_t code) {
    const std::uint32_t magnitude = code & 0x7fffu;
    const std::uint32_t sign = (code & 0x8000u) << 16;
    if (magnitude < 0x0400u) return sign | float_bits(static_cast<float>(magnitude) * 0x1p-24f);
    if (magnitude < 0x7c00u) return sign | ((magnitude << 13) + (112u << 23));
    const std::uint32_t quiet = magnitude > 0x7c00u ? 0x0040'0000u : 0u;
    return sign | kInfBits | quiet | (magnitude & 0x03ffu) << 13;
  }
};

// Header: s = 2^(floor(log2 amax) - 7). Codes: x / s, which lies in [-256, 256], as E4M3FN; at most
// 240 where 256 * s would be infinity.
struct Fp8 {
  static constexpr CodecId kId = CodecId::fp8;
  static constexpr std::uint32_t kNanCode = 0x7f;
  template <bool kStochastic>
  static EncodeReport encode(const float* x, std::size_t n, std::byte* out,
                             const BlockNoise& noise) {
    const Extent extent = extent_of(x, n);
    const std::uint32_t exponent = exponent_of(extent.amax, false);
    const float inverse = fit_to_128(exponent);
    put_float(out, extent.amax > 0.f ? power_of_two(exponent - 7) : 0.f);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t magnitude = float_bits(x[i]) & kAbsMask;
      std::uint32_t code = kNanCode;
      if (magnitude < kInfBits) {
        code = small_float<3, -6, kStochastic>(bits_float(magnitude) * inverse,
                                               kStochastic ? noise.at(i) : 0);
        if (exponent == 254 && code > 0x77) code = 0x77;
        code |= float_bits(x[i]) >> 24 & 0x80u;
      }
      out[4 + i] = static_cast<std::byte>(code);
    }
    return {extent.non_finite, 0};
  }
  template <bool kAdd>
  static void decode(const std::byte* in, std::size_t n, float* out) {
    const float scale = sane(get_float(in));
    for (std::size_t i = 0; i < n; ++i) {
      emit<kAdd>(out[i], value_of(std::to_integer<std::uint32_t>(in[4 + i])) * scale);
    }
  }
  // Denormals are multiples of 2^-9. Both NaN codes give the one NaN.
  static float value_of(std::uint32_t code) {
    const std::uint32_t magnitude = code & 0x7fu;
    if (magnitude == kNanCode) return bits_float(kNanBits);
    const float value = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9f
                                      : bits_float((magnitude << 20) + (120u << 23));
    return bits_float(float_bits(value) | (code & 0x80u) << 24);
  }
};

// Header: s = 2^floor(log2 amax). Codes: 0, or 1..7 for s * 2^(code - 7), plus 8 if negative; 8
// itself is NaN. To nearest: by logarithm, as arXiv 2501.18512 leaves open and a mantissa of no
// bits suggests; above s there is nothing, so what would round up to 2s stays s. Stochastic: s =
// 2^ceil(log2 amax), and linear between neighbours, so that the mean is x.
struct Fp4 {
  static constexpr CodecId kId = CodecId::fp4;
  static constexpr std::uint32_t kNanCode = 8;
  template <bool kStochastic>
  static EncodeReport encode(const float* x, std::size_t n, std::byte* out,
                             const BlockNoise& noise) {
    const Extent extent = extent_of(x, n);
    const std::uint32_t exponent = exponent_of(extent.amax, kStochastic);
    put_float(out, extent.amax > 0.f ? power_of_two(exponent) : 0.f);
    Codes codes;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t bits = float_bits(x[i]);
      const std::uint32_t magnitude = bits & kAbsMask;
      std::uint32_t code = kNanCode;
      if (magnitude < kInfBits) {
        std::int32_t level = 0;
        if constexpr (kStochastic) {
          const float y = bits_float(magnitude) * fit_to_128(exponent);
          level = static_cast<std::int32_t>(small_float<0, 1, true>(y, noise.at(i)));
        } else {
          const std::uint32_t near = (magnitude + kLogRound) >> 23;
          level = static_cast<std::int32_t>(near) - static_cast<std::int32_t>(exponent - 7);
        }
        code = static_cast<std::uint32_t>(clamped(level, 0, 7));
        if (code != 0) code |= bits >> 28 & 8u;
      }
      codes[i] = static_cast<std::uint8_t>(code);
    }
    put_codes<4>(codes, n, out + 4);
    return {extent.non_finite, 0};
  }
  template <bool kAdd>
  static void decode(const std::byte* in, std::size_t n, float* out) {
    const float scale = sane(get_float(in));
    float table[16];
    for (std::size_t code = 0; code < 16; ++code) table[code] = kFp4Levels[code] * scale;
    Codes codes;
    get_codes<4>(in + 4, n, codes);
    for (std::size_t i = 0; i < n; ++i) emit<kAdd>(out[i], table[codes[i]]);
  }
};

}  // namespace
}  // namespace reef::codec
