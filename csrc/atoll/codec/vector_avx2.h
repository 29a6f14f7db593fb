// Sixteen lanes as two AVX2 registers. Needs -mavx2 -mf16c. See blocks_float.h for how it is used.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace reef::codec {
namespace {

struct Avx2 {
  struct F {
    __m256 a, b;
  };
  struct I {
    __m256i a, b;
  };
  using M = I;  // all bits of a lane set, or none

  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, F v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
  }
  static F splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static I splat_int(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static I lane_numbers() {
    return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
            _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
  }
  static I bits(F v) { return {_mm256_castps_si256(v.a), _mm256_castps_si256(v.b)}; }
  static F floats(I v) { return {_mm256_castsi256_ps(v.a), _mm256_castsi256_ps(v.b)}; }

  static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static F lower(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static F upper(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }

  static I add(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
  static I sub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
  static I mul(I x, I y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
  static I lower(I x, I y) { return {_mm256_min_epi32(x.a, y.a), _mm256_min_epi32(x.b, y.b)}; }
  static I upper(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
  static I both(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
  static I either(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
  static I differ(I x, I y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
  template <int kBits>
  static I left(I v) {
    return {_mm256_slli_epi32(v.a, kBits), _mm256_slli_epi32(v.b, kBits)};
  }
  template <int kBits>
  static I right(I v) {  // zeros come in
    return {_mm256_srli_epi32(v.a, kBits), _mm256_srli_epi32(v.b, kBits)};
  }

  static M greater(I x, I y) {
    return {_mm256_cmpgt_epi32(x.a, y.a), _mm256_cmpgt_epi32(x.b, y.b)};
  }
  static M equal(I x, I y) { return {_mm256_cmpeq_epi32(x.a, y.a), _mm256_cmpeq_epi32(x.b, y.b)}; }
  static I where(M m, I yes, I no) {
    return {_mm256_blendv_epi8(no.a, yes.a, m.a), _mm256_blendv_epi8(no.b, yes.b, m.b)};
  }

  static I nearest(F v) { return {_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)}; }
  static I truncated(F v) { return {_mm256_cvttps_epi32(v.a), _mm256_cvttps_epi32(v.b)}; }
  static I floor(F v) {
    return {_mm256_cvtps_epi32(_mm256_floor_ps(v.a)), _mm256_cvtps_epi32(_mm256_floor_ps(v.b))};
  }
  static F to_float(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }

  static std::int32_t highest(I v) {
    __m256i m = _mm256_max_epi32(v.a, v.b);
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    return _mm_cvtsi128_si32(h);
  }
  static float highest(F v) {
    __m256 m = _mm256_max_ps(v.a, v.b);
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    h = _mm_max_ps(h, _mm_shuffle_ps(h, h, 0x4e));
    h = _mm_max_ps(h, _mm_shuffle_ps(h, h, 0xb1));
    return _mm_cvtss_f32(h);
  }
  static float lowest(F v) {
    __m256 m = _mm256_min_ps(v.a, v.b);
    __m128 h = _mm_min_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    h = _mm_min_ps(h, _mm_shuffle_ps(h, h, 0x4e));
    h = _mm_min_ps(h, _mm_shuffle_ps(h, h, 0xb1));
    return _mm_cvtss_f32(h);
  }

  // table[index & 15]
  static F lookup(F table, I index) { return {lookup8(table, index.a), lookup8(table, index.b)}; }

  static I load_bytes(const std::byte* p) {  // zero-extended
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))};
  }
  static I load_signed_bytes(const std::byte* p) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))};
  }
  static void store_bytes(std::byte* p, I v) {  // the low 8 bits of each lane
    const __m128i low = low_bytes(v.a), high = low_bytes(v.b);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi64(low, high));
  }
  static I load_words(const std::byte* p) {  // 16 bits each, zero-extended
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)),
            _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1))};
  }
  static void store_words(std::byte* p, I v) {  // each lane below 2^16
    const __m256i packed = _mm256_packus_epi32(v.a, v.b);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  static F load_halves(const std::byte* p) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1))};
  }
  static void store_halves(std::byte* p, F v) {
    const __m128i low = _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m128i high = _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_set_m128i(high, low));
  }

 private:
  static __m256 lookup8(F table, __m256i index) {
    const __m256 low = _mm256_permutevar8x32_ps(table.a, index);
    const __m256 high = _mm256_permutevar8x32_ps(table.b, index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  // The low bytes of eight lanes, in the low half.
  static __m128i low_bytes(__m256i v) {
    const __m256i pick =
        _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                         -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i picked = _mm256_shuffle_epi8(v, pick);
    return _mm_or_si128(_mm256_castsi256_si128(picked), _mm256_extracti128_si256(picked, 1));
  }
};

}  // namespace
}  // namespace reef::codec
