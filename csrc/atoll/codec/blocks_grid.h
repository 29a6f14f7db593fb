// Vector kernels of int8, int4, their min-max variants, and 2-bit. scalar_grid.h says what they
// compute.
#pragma once

#include "atoll/codec/blocks.h"

namespace reef::codec {
namespace {

template <CodecId kCodec, int kWidth, std::int32_t kLargest, bool kMinMax>
struct Integer {
  static constexpr CodecId kId = kCodec;
  static constexpr Layout kLayout = layout_of(kCodec);
  static constexpr std::size_t kGroup = group_elements(kWidth);

  template <class V, bool kStochastic>
  static bool encode(const float* x, std::byte* out, const BlockNoise& block) {
    const VectorNoise<V> noise(block);
    const std::uint32_t amax = amax_bits<V>(x, kLayout.block);
    if (amax >= kInfBits) return false;
    const Grid grid = grid_for<V>(x, bits_float(amax));
    put_float(out, grid.scale);
    if (kMinMax) put_float(out + 4, grid.middle);
    out += kLayout.header;
    const auto inverse = V::splat(grid.inverse), middle = V::splat(grid.middle);
    for (std::size_t first = 0; first < kLayout.block; first += kGroup, out += 16) {
      put_group<V, kWidth>(out, [&](std::size_t i) {
        auto v = V::load(x + first + i);
        if constexpr (kMinMax) v = V::sub(v, middle);
        auto q = to_integer<V, kStochastic>(V::mul(v, inverse), noise, first + i);
        // Rounded to nearest, a symmetric grid's codes cannot leave it: |x| * inverse stays below
        // kLargest + 0.01 (kHuge is less than amax only by 2^-17).
        if constexpr (kStochastic || kMinMax) q = clamped<V>(q, -kLargest, kLargest);
        return kWidth == 8 ? q : V::both(q, V::splat_int(15));
      });
    }
    return true;
  }

  template <class V, bool kAdd>
  static void decode(const std::byte* in, float* out) {
    const auto scale = V::splat(sane(get_float(in)));
    const auto middle = V::splat(kMinMax ? sane(get_float(in + 4)) : 0.f);
    in += kLayout.header;
    if constexpr (kWidth == 4) {
      auto table = V::mul(V::load(kInt4Levels), scale);
      if constexpr (kMinMax) table = V::add(middle, table);
      for (std::size_t i = 0; i < kLayout.block; i += kGroup, in += 16) {
        get_group<V, 4, kAdd>(in, table, out + i);
      }
    } else {
      for (std::size_t i = 0; i < kLayout.block; i += kLanes) {
        const auto code = V::load_signed_bytes(in + i);
        const auto is_nan = V::equal(code, V::splat_int(-kLargest - 1));
        auto q = V::bits(V::to_float(code));
        q = V::where(is_nan, splat_bits<V>(kNanBits), q);
        auto value = V::mul(V::floats(q), scale);
        if constexpr (kMinMax) value = V::add(middle, value);
        emit<V, kAdd>(out + i, value);
      }
    }
  }

 private:
  template <class V>
  static Grid grid_for(const float* x, float amax) {
    constexpr auto kTop = static_cast<float>(kLargest);
    if constexpr (!kMinMax) return symmetric_grid(amax, kTop);
    auto low = V::load(x), high = low;
    for (std::size_t i = kLanes; i < kLayout.block; i += kLanes) {
      const auto v = V::load(x + i);
      low = V::lower(low, v);
      high = V::upper(high, v);
    }
    return minmax_grid(V::lowest(low), V::highest(high), kTop);
  }
};
using Int8 = Integer<CodecId::int8, 8, 127, false>;
using Int8MinMax = Integer<CodecId::int8_minmax, 8, 127, true>;
using Int4 = Integer<CodecId::int4, 4, 7, false>;
using Int4MinMax = Integer<CodecId::int4_minmax, 4, 7, true>;

struct TwoBit {
  static constexpr CodecId kId = CodecId::two_bit;
  static constexpr std::size_t kGroup = group_elements(2);

  template <class V, bool kStochastic>
  static bool encode(const float* x, std::byte* out, const BlockNoise& block) {
    const VectorNoise<V> noise(block);
    const std::uint32_t bits = amax_bits<V>(x, kCodecBlock);
    if (bits >= kInfBits) return false;
    const float amax = bits_float(bits);
    float outer = amax > 0.f ? bounded(amax) : 0.f;
    if constexpr (!kStochastic) outer = two_bit_outer(shrunk_sum<V>(x), amax, kCodecBlock);
    put_float(out, outer);
    out += 4;
    const auto inverse = V::splat(outer > 0.f ? 1.5f / outer : 0.f), zero_code = V::splat(1.5f);
    for (std::size_t first = 0; first < kCodecBlock; first += kGroup, out += 16) {
      put_group<V, 2>(out, [&](std::size_t i) {
        const auto y = V::add(V::mul(V::load(x + first + i), inverse), zero_code);
        return clamped<V>(to_integer<V, kStochastic>(y, noise, first + i), 0, 3);
      });
    }
    return true;
  }

  template <class V, bool kAdd>
  static void decode(const std::byte* in, float* out) {
    const float outer = sane(get_float(in)), inner = outer * kThird;
    const float levels[kLanes] = {-outer, -inner, inner, outer, -outer, -inner, inner, outer,
                                  -outer, -inner, inner, outer, -outer, -inner, inner, outer};
    const auto table = V::load(levels);
    in += 4;
    for (std::size_t i = 0; i < kCodecBlock; i += kGroup, in += 16) {
      get_group<V, 2, kAdd>(in, table, out + i);
    }
  }

 private:
  template <class V>
  static float shrunk_sum(const float* x) {
    auto sum = V::splat(0.f);
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      const auto y = V::floats(magnitude<V>(V::load(x + i)));
      sum = V::add(sum, V::mul(y, V::splat(kTwoBitShrink)));
    }
    float lanes[kLanes];
    V::store(lanes, sum);
    for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
      for (std::size_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    }
    return lanes[0];
  }
};

}  // namespace
}  // namespace reef::codec
