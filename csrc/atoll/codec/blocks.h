// What the vector kernels share. V is the instruction set: sixteen lanes of fp32 or of 32-bit
// integers (vector_avx2.h shows its members).
//
// A format's encode<V, stochastic>() takes one whole block. It returns false when the block holds
// what only the portable code deals with (non-finite values, saturation); that writes it again
// then. decode<V, add>() takes one whole block of any bytes.
#pragma once

#include <cstring>

#include "atoll/codec/format.h"

namespace reef::codec {
namespace {

constexpr std::size_t kLanes = 16;

template <class V>
typename V::I magnitude(typename V::F x) {
  return V::both(V::bits(x), V::splat_int(static_cast<std::int32_t>(kAbsMask)));
}
template <class V>
typename V::I splat_bits(std::uint32_t bits) {
  return V::splat_int(static_cast<std::int32_t>(bits));
}

// Bits of the largest magnitude among `n` elements, a multiple of 16; kInfBits and more if one of
// them is not finite. Two accumulators, for the sake of instruction sets with slow maxima.
template <class V>
std::uint32_t amax_bits(const float* x, std::size_t n) {
  typename V::I even = V::splat_int(0), odd = V::splat_int(0);
  std::size_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = V::upper(even, magnitude<V>(V::load(x + i)));
    odd = V::upper(odd, magnitude<V>(V::load(x + i + kLanes)));
  }
  return static_cast<std::uint32_t>(V::highest(V::upper(even, odd)));
}

struct BlockNoise {
  Noise noise;
  std::uint32_t first_lane = 0;  // of the block's first element
};

// noise_bits() for sixteen elements from the block's i-th on.
template <class V>
class VectorNoise {
 public:
  explicit VectorNoise(const BlockNoise& block)
      : first_(V::add(V::mul(V::lane_numbers(), splat_bits<V>(kLaneStep)),
                      splat_bits<V>(block.noise.first + block.first_lane * kLaneStep))),
        second_(splat_bits<V>(block.noise.second)) {}
  typename V::I at(std::size_t i) const {
    auto z = V::add(first_, splat_bits<V>(static_cast<std::uint32_t>(i) * kLaneStep));
    z = V::mul(V::differ(z, V::template right<16>(z)), splat_bits<V>(kMixFirst));
    z = V::mul(V::add(V::differ(z, V::template right<15>(z)), second_), splat_bits<V>(kMixSecond));
    return V::differ(z, V::template right<16>(z));
  }

 private:
  typename V::I first_;
  typename V::I second_;
};

// nearest_even(), or stochastic_floor() with sixteen elements' random bits.
template <class V, bool kStochastic>
typename V::I to_integer(typename V::F y, const VectorNoise<V>& noise, std::size_t i) {
  if constexpr (kStochastic) {
    const auto u = V::to_float(V::template right<8>(noise.at(i)));
    return V::floor(V::add(y, V::mul(u, V::splat(0x1p-24f))));
  } else {
    return V::nearest(y);
  }
}

template <class V>
typename V::I clamped(typename V::I x, std::int32_t low, std::int32_t high) {
  return V::lower(V::upper(x, V::splat_int(low)), V::splat_int(high));
}

// Little-endian machines only, as all that have these instruction sets.
inline void put_float(std::byte* at, float value) {
  std::memcpy(at, &value, sizeof value);
}
inline float get_float(const std::byte* at) {
  float value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class V, bool kAdd>
void emit(float* out, typename V::F value) {
  V::store(out, kAdd ? V::add(V::load(out), value) : value);
}

// One group of narrow codes: `code(i)` gives the codes, below 2^kWidth, of 16 elements from the
// group's i-th on.
template <class V, int kWidth, class Code>
void put_group(std::byte* out, Code code) {
  auto packed = code(std::size_t{0});
  if constexpr (kWidth <= 4) packed = V::either(packed, V::template left<kWidth>(code(kLanes)));
  if constexpr (kWidth == 2) {
    packed = V::either(packed, V::template left<4>(code(2 * kLanes)));
    packed = V::either(packed, V::template left<6>(code(3 * kLanes)));
  }
  V::store_bytes(out, packed);
}

// One group decoded through a table of 16 values (2-bit: four times the same four).
template <class V, int kWidth, bool kAdd>
void get_group(const std::byte* in, typename V::F table, float* out) {
  const auto packed = V::load_bytes(in);
  emit<V, kAdd>(out, V::lookup(table, packed));
  if constexpr (kWidth == 4) {
    emit<V, kAdd>(out + kLanes, V::lookup(table, V::template right<4>(packed)));
  } else {
    emit<V, kAdd>(out + kLanes, V::lookup(table, V::template right<2>(packed)));
    emit<V, kAdd>(out + 2 * kLanes, V::lookup(table, V::template right<4>(packed)));
    emit<V, kAdd>(out + 3 * kLanes, V::lookup(table, V::template right<6>(packed)));
  }
}

}  // namespace
}  // namespace reef::codec
