// Scalar reference of the codecs whose codes count equal steps: int8, int4, their min-max variants,
// and 2-bit. See scalar_float.h for what encode() and decode() promise.
//
// Non-finite values: the one code that int8 and int4 have to spare is NaN, and the scale is that of
// the finite values. 2-bit has none to spare: its block's header becomes NaN, and so does all of
// the block.
#pragma once

#include "atoll/codec/scalar.h"

namespace reef::codec {
namespace {

// Header: scale, with kMinMax also the middle. Codes: q in -kLargest..kLargest, two's complement;
// value = q * scale, or middle + q * scale. kWidth 8: one a byte.
template <CodecId kCodec, std::size_t kWidth, std::int32_t kLargest, bool kMinMax>
struct Integer {
  static constexpr CodecId kId = kCodec;
  static constexpr std::size_t kHeader = kMinMax ? 8 : 4;
  static constexpr std::int32_t kNanCode = -kLargest - 1;

  template <bool kStochastic>
  static EncodeReport encode(const float* x, std::size_t n, std::byte* out,
                             const BlockNoise& noise) {
    const Extent extent = extent_of(x, n);
    const auto largest = static_cast<float>(kLargest);
    const Grid grid = kMinMax ? minmax_grid(extent.low, extent.high, largest)
                              : symmetric_grid(extent.amax, largest);
    put_float(out, grid.scale);
    if (kMinMax) put_float(out + 4, grid.middle);
    Codes codes;
    for (std::size_t i = 0; i < n; ++i) {
      const float value = finite(x[i]) ? x[i] : 0.f;
      const float y = (kMinMax ? value - grid.middle : value) * grid.inverse;
      std::int32_t code = kStochastic ? stochastic_floor(y, noise.at(i)) : nearest_even(y);
      code = clamped(code, -kLargest, kLargest);
      codes[i] = static_cast<std::uint8_t>(finite(x[i]) ? code : kNanCode);
    }
    put_codes<kWidth>(codes, n, out + kHeader);
    return {extent.non_finite, 0};
  }
  template <bool kAdd>
  static void decode(const std::byte* in, std::size_t n, float* out) {
    const float scale = sane(get_float(in));
    const float middle = kMinMax ? sane(get_float(in + 4)) : 0.f;
    Codes codes;
    get_codes<kWidth>(in + kHeader, n, codes);
    for (std::size_t i = 0; i < n; ++i) {
      constexpr unsigned kShift = 32 - kWidth;
      const auto code = static_cast<std::int32_t>(std::uint32_t{codes[i]} << kShift) >> kShift;
      const float q = code == kNanCode ? bits_float(kNanBits) : static_cast<float>(code);
      emit<kAdd>(out[i], kMinMax ? middle + q * scale : q * scale);
    }
  }
};
using Int8 = Integer<CodecId::int8, 8, 127, false>;
using Int8MinMax = Integer<CodecId::int8_minmax, 8, 127, true>;
using Int4 = Integer<CodecId::int4, 4, 7, false>;
using Int4MinMax = Integer<CodecId::int4_minmax, 4, 7, true>;

// Header: outer level s. Codes 0..3: -s, -s/3, s/3, s. To nearest, s follows the mean of |x|, at
// most amax; stochastic, it is amax, so that the mean is x.
struct TwoBit {
  static constexpr CodecId kId = CodecId::two_bit;
  static constexpr std::size_t kLanes = 16;

  template <bool kStochastic>
  static EncodeReport encode(const float* x, std::size_t n, std::byte* out,
                             const BlockNoise& noise) {
    const Extent extent = extent_of(x, n);
    Codes codes = {};
    if (extent.non_finite != 0) {
      put_float(out, bits_float(kNanBits));
      put_codes<2>(codes, n, out + 4);
      return {extent.non_finite, 0};
    }
    float outer = extent.amax > 0.f ? bounded(extent.amax) : 0.f;
    if (!kStochastic) outer = two_bit_outer(shrunk_sum(x, n), extent.amax, n);
    const float inverse = outer > 0.f ? 1.5f / outer : 0.f;
    put_float(out, outer);
    for (std::size_t i = 0; i < n; ++i) {
      const float y = x[i] * inverse + 1.5f;
      const std::int32_t code = kStochastic ? stochastic_floor(y, noise.at(i)) : nearest_even(y);
      codes[i] = static_cast<std::uint8_t>(clamped(code, 0, 3));
    }
    put_codes<2>(codes, n, out + 4);
    return {};
  }
  template <bool kAdd>
  static void decode(const std::byte* in, std::size_t n, float* out) {
    const float outer = sane(get_float(in));
    const float levels[4] = {-outer, -(outer * kThird), outer * kThird, outer};
    Codes codes;
    get_codes<2>(in + 4, n, codes);
    for (std::size_t i = 0; i < n; ++i) emit<kAdd>(out[i], levels[codes[i]]);
  }
  // The order of the additions is part of the format: lane j of 16 adds elements j, j + 16, ...;
  // then lanes j and j + 8 are added, j and j + 4, j and j + 2, j and j + 1.
  static float shrunk_sum(const float* x, std::size_t n) {
    float lanes[kLanes] = {};
    for (std::size_t i = 0; i < n; ++i) {
      lanes[i % kLanes] += bits_float(float_bits(x[i]) & kAbsMask) * kTwoBitShrink;
    }
    return folded(lanes);
  }
  static float folded(float* lanes) {
    for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
      for (std::size_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    }
    return lanes[0];
  }
};

}  // namespace
}  // namespace reef::codec
