// Sixteen lanes as four NEON registers (AArch64). See vector_avx2.h, whose members these are.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace reef::codec {
namespace {

struct Neon {
  struct F {
    float32x4_t v[4];
  };
  struct I {
    int32x4_t v[4];
  };
  using M = I;

  static F load(const float* p) {
    return each<F>([p](int k) { return vld1q_f32(p + 4 * k); });
  }
  static void store(float* p, F x) {
    for (int k = 0; k < 4; ++k) vst1q_f32(p + 4 * k, x.v[k]);
  }
  static F splat(float x) {
    return each<F>([x](int) { return vdupq_n_f32(x); });
  }
  static I splat_int(std::int32_t x) {
    return each<I>([x](int) { return vdupq_n_s32(x); });
  }
  static I lane_numbers() {
    const std::int32_t first[4] = {0, 1, 2, 3};
    return each<I>([&](int k) { return vaddq_s32(vld1q_s32(first), vdupq_n_s32(4 * k)); });
  }
  static I bits(F x) {
    return each<I>([&](int k) { return vreinterpretq_s32_f32(x.v[k]); });
  }
  static F floats(I x) {
    return each<F>([&](int k) { return vreinterpretq_f32_s32(x.v[k]); });
  }

  static F add(F x, F y) {
    return each<F>([&](int k) { return vaddq_f32(x.v[k], y.v[k]); });
  }
  static F sub(F x, F y) {
    return each<F>([&](int k) { return vsubq_f32(x.v[k], y.v[k]); });
  }
  static F mul(F x, F y) {
    return each<F>([&](int k) { return vmulq_f32(x.v[k], y.v[k]); });
  }
  static F lower(F x, F y) {
    return each<F>([&](int k) { return vminq_f32(x.v[k], y.v[k]); });
  }
  static F upper(F x, F y) {
    return each<F>([&](int k) { return vmaxq_f32(x.v[k], y.v[k]); });
  }

  static I add(I x, I y) {
    return each<I>([&](int k) { return vaddq_s32(x.v[k], y.v[k]); });
  }
  static I sub(I x, I y) {
    return each<I>([&](int k) { return vsubq_s32(x.v[k], y.v[k]); });
  }
  static I mul(I x, I y) {
    return each<I>([&](int k) { return vmulq_s32(x.v[k], y.v[k]); });
  }
  static I lower(I x, I y) {
    return each<I>([&](int k) { return vminq_s32(x.v[k], y.v[k]); });
  }
  static I upper(I x, I y) {
    return each<I>([&](int k) { return vmaxq_s32(x.v[k], y.v[k]); });
  }
  static I both(I x, I y) {
    return each<I>([&](int k) { return vandq_s32(x.v[k], y.v[k]); });
  }
  static I either(I x, I y) {
    return each<I>([&](int k) { return vorrq_s32(x.v[k], y.v[k]); });
  }
  static I differ(I x, I y) {
    return each<I>([&](int k) { return veorq_s32(x.v[k], y.v[k]); });
  }
  template <int kBits>
  static I left(I x) {
    if constexpr (kBits == 0)
      return x;
    else
      return each<I>([&](int k) { return vshlq_n_s32(x.v[k], kBits); });
  }
  template <int kBits>
  static I right(I x) {
    if constexpr (kBits == 0) {
      return x;
    } else {
      return each<I>([&](int k) {
        return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x.v[k]), kBits));
      });
    }
  }

  static M greater(I x, I y) {
    return each<I>([&](int k) { return vreinterpretq_s32_u32(vcgtq_s32(x.v[k], y.v[k])); });
  }
  static M equal(I x, I y) {
    return each<I>([&](int k) { return vreinterpretq_s32_u32(vceqq_s32(x.v[k], y.v[k])); });
  }
  static I where(M m, I yes, I no) {
    return each<I>(
        [&](int k) { return vbslq_s32(vreinterpretq_u32_s32(m.v[k]), yes.v[k], no.v[k]); });
  }

  static I nearest(F x) {
    return each<I>([&](int k) { return vcvtnq_s32_f32(x.v[k]); });
  }
  static I truncated(F x) {
    return each<I>([&](int k) { return vcvtq_s32_f32(x.v[k]); });
  }
  static I floor(F x) {
    return each<I>([&](int k) { return vcvtmq_s32_f32(x.v[k]); });
  }
  static F to_float(I x) {
    return each<F>([&](int k) { return vcvtq_f32_s32(x.v[k]); });
  }

  static std::int32_t highest(I x) {
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.v[0], x.v[1]), vmaxq_s32(x.v[2], x.v[3])));
  }
  static float highest(F x) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3])));
  }
  static float lowest(F x) {
    return vminvq_f32(vminq_f32(vminq_f32(x.v[0], x.v[1]), vminq_f32(x.v[2], x.v[3])));
  }

  // Byte indices into 64 bytes of table: four consecutive ones for each lane.
  static F lookup(F table, I index) {
    uint8x16x4_t bytes;
    for (int k = 0; k < 4; ++k) bytes.val[k] = vreinterpretq_u8_f32(table.v[k]);
    return each<F>([&](int k) {
      const int32x4_t nibble = vandq_s32(index.v[k], vdupq_n_s32(15));
      const int32x4_t at = vaddq_s32(vmulq_n_s32(nibble, 0x0404'0404), vdupq_n_s32(0x0302'0100));
      return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_s32(at)));
    });
  }

  static I load_bytes(const std::byte* p) {
    const uint8x16_t v = vld1q_u8(reinterpret_cast<const std::uint8_t*>(p));
    const uint16x8_t low = vmovl_u8(vget_low_u8(v)), high = vmovl_u8(vget_high_u8(v));
    return widened(low, high);
  }
  static I load_signed_bytes(const std::byte* p) {
    const int8x16_t v = vld1q_s8(reinterpret_cast<const std::int8_t*>(p));
    const int16x8_t low = vmovl_s8(vget_low_s8(v)), high = vmovl_s8(vget_high_s8(v));
    return {{vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)),
             vmovl_s16(vget_low_s16(high)), vmovl_s16(vget_high_s16(high))}};
  }
  static void store_bytes(std::byte* p, I x) {
    const int8x8_t low = vmovn_s16(vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1])));
    const int8x8_t high = vmovn_s16(vcombine_s16(vmovn_s32(x.v[2]), vmovn_s32(x.v[3])));
    vst1q_s8(reinterpret_cast<std::int8_t*>(p), vcombine_s8(low, high));
  }
  // Bytes, because p need not be aligned to 16 bits.
  static I load_words(const std::byte* p) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(p);
    return widened(vreinterpretq_u16_u8(vld1q_u8(bytes)),
                   vreinterpretq_u16_u8(vld1q_u8(bytes + 16)));
  }
  static void store_words(std::byte* p, I x) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(p);
    for (int k = 0; k < 4; ++k) {
      vst1_u8(bytes + 8 * k, vreinterpret_u8_s16(vmovn_s32(x.v[k])));
    }
  }
  static F load_halves(const std::byte* p) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(p);
    return each<F>(
        [&](int k) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(bytes + 8 * k))); });
  }
  static void store_halves(std::byte* p, F x) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(p);
    for (int k = 0; k < 4; ++k) {
      vst1_u8(bytes + 8 * k, vreinterpret_u8_f16(vcvt_f16_f32(x.v[k])));
    }
  }

 private:
  template <class V, class Make>
  static V each(Make make) {
    return {{make(0), make(1), make(2), make(3)}};
  }
  static I widened(uint16x8_t low, uint16x8_t high) {
    return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
             vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
             vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
             vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))}};
  }
};

}  // namespace
}  // namespace reef::codec
