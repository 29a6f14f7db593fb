// Vector kernels of fp32, bf16, fp16, fp8 and fp4. scalar_float.h says what they compute.
#pragma once

#include "atoll/codec/blocks.h"

namespace reef::codec {
namespace {

struct Fp32 {
  static constexpr CodecId kId = CodecId::fp32;
  template <class V, bool kStochastic>
  static bool encode(const float* x, std::byte* out, const BlockNoise&) {
    auto top = V::splat_int(0);
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      const auto v = V::load(x + i);
      top = V::upper(top, magnitude<V>(v));
      V::store(reinterpret_cast<float*>(out + 4 * i), v);
    }
    return static_cast<std::uint32_t>(V::highest(top)) < kInfBits;
  }
  template <class V, bool kAdd>
  static void decode(const std::byte* in, float* out) {
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      emit<V, kAdd>(out + i, V::load(reinterpret_cast<const float*>(in + 4 * i)));
    }
  }
};

template <class V, unsigned kDrop, bool kStochastic>
typename V::I rounded(typename V::I bits, const VectorNoise<V>& noise, std::size_t i) {
  if constexpr (kStochastic) {
    const auto random = V::both(noise.at(i), V::splat_int((1 << kDrop) - 1));
    return V::template right<kDrop>(V::add(bits, random));
  } else {
    const auto odd = V::both(V::template right<kDrop>(bits), V::splat_int(1));
    const auto below_half = V::splat_int((1 << (kDrop - 1)) - 1);
    return V::template right<kDrop>(V::add(V::add(bits, below_half), odd));
  }
}

struct Bf16 {
  static constexpr CodecId kId = CodecId::bf16;
  template <class V, bool kStochastic>
  static bool encode(const float* x, std::byte* out, const BlockNoise& block) {
    const VectorNoise<V> noise(block);
    auto top = V::splat_int(0);
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      // The sign bit stays out of the way: nothing carries into it below kBf16Largest.
      const auto bits = V::bits(V::load(x + i));
      top = V::upper(top, V::both(bits, splat_bits<V>(kAbsMask)));
      V::store_words(out + 2 * i, rounded<V, 16, kStochastic>(bits, noise, i));
    }
    return static_cast<std::uint32_t>(V::highest(top)) <= kBf16Largest;
  }
  template <class V, bool kAdd>
  static void decode(const std::byte* in, float* out) {
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      emit<V, kAdd>(out + i, V::floats(V::template left<16>(V::load_words(in + 2 * i))));
    }
  }
};

// small_float() of scalar_float.h, for y >= 0.
template <class V, unsigned kMantissa, int kLeast, bool kStochastic>
typename V::I small_float(typename V::F y, const VectorNoise<V>& noise, std::size_t i) {
  constexpr unsigned kDrop = 23 - kMantissa;
  constexpr std::int32_t kLeastBiased = 127 + kLeast;
  constexpr std::int32_t kRebias = (kLeastBiased - 1) << kMantissa;
  const auto bits = V::bits(y);
  const auto is_small = V::greater(V::splat_int(kLeastBiased << 23), bits);
  if constexpr (kStochastic) {
    // Either way kDrop random bits are added and kDrop bits dropped. Lanes that are not small
    // convert to something that is not used.
    constexpr float kFixed = bits_float(static_cast<std::uint32_t>(150 - kLeast) << 23);
    const auto fixed = V::truncated(V::mul(y, V::splat(kFixed)));
    const auto rebiased = V::sub(bits, V::splat_int(kRebias << kDrop));
    return rounded<V, kDrop, true>(V::where(is_small, fixed, rebiased), noise, i);
  } else {
    constexpr std::uint32_t kAnchor =
        static_cast<std::uint32_t>(150 + kLeast - static_cast<int>(kMantissa)) << 23;
    const auto sum = V::bits(V::add(y, V::splat(bits_float(kAnchor))));
    const auto fixed = V::sub(sum, splat_bits<V>(kAnchor));
    const auto normal = V::sub(rounded<V, kDrop, false>(bits, noise, i), V::splat_int(kRebias));
    return V::where(is_small, fixed, normal);
  }
}

struct Fp16 {
  static constexpr CodecId kId = CodecId::fp16;
  template <class V, bool kStochastic>
  static bool encode(const float* x, std::byte* out, const BlockNoise& block) {
    const VectorNoise<V> noise(block);
    auto top = V::splat_int(0);
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      const auto v = V::load(x + i);
      const auto y = magnitude<V>(v);
      top = V::upper(top, y);
      if constexpr (kStochastic) {
        const auto sign = V::both(V::template right<16>(V::bits(v)), V::splat_int(0x8000));
        const auto code = small_float<V, 10, -14, true>(V::floats(y), noise, i);
        V::store_words(out + 2 * i, V::either(V::both(code, V::splat_int(0x7fff)), sign));
      } else {
        V::store_halves(out + 2 * i, v);
      }
    }
    return static_cast<std::uint32_t>(V::highest(top)) <= kFp16Largest;
  }
  template <class V, bool kAdd>
  static void decode(const std::byte* in, float* out) {
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      emit<V, kAdd>(out + i, V::load_halves(in + 2 * i));
    }
  }
};

struct Fp8 {
  static constexpr CodecId kId = CodecId::fp8;
  template <class V, bool kStochastic>
  static bool encode(const float* x, std::byte* out, const BlockNoise& block) {
    const VectorNoise<V> noise(block);
    const std::uint32_t amax = amax_bits<V>(x, kCodecBlock);
    if (amax > kFp8Largest) return false;
    const std::uint32_t exponent = exponent_of(bits_float(amax), false);
    const auto inverse = V::splat(fit_to_128(exponent));
    put_float(out, amax != 0 ? power_of_two(exponent - 7) : 0.f);
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      const auto v = V::load(x + i);
      const auto sign = V::both(V::template right<24>(V::bits(v)), V::splat_int(0x80));
      const auto y = V::mul(V::floats(magnitude<V>(v)), inverse);
      V::store_bytes(out + 4 + i, V::either(small_float<V, 3, -6, kStochastic>(y, noise, i), sign));
    }
    return true;
  }
  template <class V, bool kAdd>
  static void decode(const std::byte* in, float* out) {
    const auto scale = V::splat(sane(get_float(in)));
    for (std::size_t i = 0; i < kCodecBlock; i += kLanes) {
      const auto code = V::load_bytes(in + 4 + i);
      const auto low = V::both(code, V::splat_int(0x7f));
      const auto sign = V::template left<24>(V::both(code, V::splat_int(0x80)));
      const auto normal = V::add(V::template left<20>(low), V::splat_int(120 << 23));
      const auto fixed = V::bits(V::mul(V::to_float(low), V::splat(0x1p-9f)));
      auto value = V::where(V::greater(V::splat_int(8), low), fixed, normal);
      value = V::either(value, sign);
      value = V::where(V::equal(low, V::splat_int(0x7f)), splat_bits<V>(kNanBits), value);
      emit<V, kAdd>(out + i, V::mul(V::floats(value), scale));
    }
  }
};

struct Fp4 {
  static constexpr CodecId kId = CodecId::fp4;
  static constexpr std::size_t kGroup = group_elements(4);
  template <class V, bool kStochastic>
  static bool encode(const float* x, std::byte* out, const BlockNoise& block) {
    const VectorNoise<V> noise(block);
    const std::uint32_t amax = amax_bits<V>(x, kCodecBlock);
    if (amax >= kInfBits) return false;
    const std::uint32_t exponent = exponent_of(bits_float(amax), kStochastic);
    put_float(out, amax != 0 ? power_of_two(exponent) : 0.f);
    out += 4;
    for (std::size_t first = 0; first < kCodecBlock; first += kGroup, out += 16) {
      put_group<V, 4>(out, [&](std::size_t i) {
        return code<V, kStochastic>(V::load(x + first + i), exponent, noise, first + i);
      });
    }
    return true;
  }
  template <class V, bool kAdd>
  static void decode(const std::byte* in, float* out) {
    const auto table = V::mul(V::load(kFp4Levels), V::splat(sane(get_float(in))));
    in += 4;
    for (std::size_t i = 0; i < kCodecBlock; i += kGroup, in += 16) {
      get_group<V, 4, kAdd>(in, table, out + i);
    }
  }

 private:
  template <class V, bool kStochastic>
  static typename V::I code(typename V::F v, std::uint32_t exponent, const VectorNoise<V>& noise,
                            std::size_t i) {
    auto level = magnitude<V>(v);
    if constexpr (kStochastic) {
      const auto y = V::mul(V::floats(level), V::splat(fit_to_128(exponent)));
      level = small_float<V, 0, 1, true>(y, noise, i);
    } else {
      level = V::template right<23>(V::add(level, splat_bits<V>(kLogRound)));
      level = V::sub(level, splat_bits<V>(exponent - 7));
    }
    level = clamped<V>(level, 0, 7);
    const auto sign = V::both(V::template right<28>(V::bits(v)), V::splat_int(8));
    const auto nothing = V::splat_int(0);
    return V::where(V::greater(level, nothing), V::either(level, sign), nothing);
  }
};

}  // namespace
}  // namespace reef::codec
