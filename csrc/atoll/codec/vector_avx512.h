// Sixteen lanes as one AVX-512 register. Needs -mavx512f -mavx512bw -mavx512dq -mavx512vl. See
// vector_avx2.h, whose members these are.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace reef::codec {
namespace {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  using M = __mmask16;

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F splat(float x) { return _mm512_set1_ps(x); }
  static I splat_int(std::int32_t x) { return _mm512_set1_epi32(x); }
  static I lane_numbers() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
  static I bits(F v) { return _mm512_castps_si512(v); }
  static F floats(I v) { return _mm512_castsi512_ps(v); }

  static F add(F x, F y) { return _mm512_add_ps(x, y); }
  static F sub(F x, F y) { return _mm512_sub_ps(x, y); }
  static F mul(F x, F y) { return _mm512_mul_ps(x, y); }
  static F lower(F x, F y) { return _mm512_min_ps(x, y); }
  static F upper(F x, F y) { return _mm512_max_ps(x, y); }

  static I add(I x, I y) { return _mm512_add_epi32(x, y); }
  static I sub(I x, I y) { return _mm512_sub_epi32(x, y); }
  static I mul(I x, I y) { return _mm512_mullo_epi32(x, y); }
  static I lower(I x, I y) { return _mm512_min_epi32(x, y); }
  static I upper(I x, I y) { return _mm512_max_epi32(x, y); }
  static I both(I x, I y) { return _mm512_and_si512(x, y); }
  static I either(I x, I y) { return _mm512_or_si512(x, y); }
  static I differ(I x, I y) { return _mm512_xor_si512(x, y); }
  template <int kBits>
  static I left(I v) {
    return _mm512_slli_epi32(v, kBits);
  }
  template <int kBits>
  static I right(I v) {
    return _mm512_srli_epi32(v, kBits);
  }

  static M greater(I x, I y) { return _mm512_cmpgt_epi32_mask(x, y); }
  static M equal(I x, I y) { return _mm512_cmpeq_epi32_mask(x, y); }
  static I where(M m, I yes, I no) { return _mm512_mask_blend_epi32(m, no, yes); }

  static I nearest(F v) { return _mm512_cvtps_epi32(v); }
  static I truncated(F v) { return _mm512_cvttps_epi32(v); }
  static I floor(F v) {
    return _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  }
  static F to_float(I v) { return _mm512_cvtepi32_ps(v); }

  static std::int32_t highest(I v) { return _mm512_reduce_max_epi32(v); }
  static float highest(F v) { return _mm512_reduce_max_ps(v); }
  static float lowest(F v) { return _mm512_reduce_min_ps(v); }

  static F lookup(F table, I index) { return _mm512_permutexvar_ps(index, table); }

  static I load_bytes(const std::byte* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static I load_signed_bytes(const std::byte* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_bytes(std::byte* p, I v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }
  static I load_words(const std::byte* p) {
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_words(std::byte* p, I v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
  }
  static F load_halves(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_halves(std::byte* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

}  // namespace
}  // namespace reef::codec
