// What the codecs make of values: against dumb searches through all codes, and at the edges.
#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>

#include "codec_samples.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace reef {
namespace {

using samples::kInf;
using samples::kLeastDenormal;
using samples::kMax;
using samples::kNan;
using samples::mixture;
using samples::through;

std::uint32_t bits_of(float x) {
  return std::bit_cast<std::uint32_t>(x);
}
Codec nearest(CodecId id) {
  return {id, Rounding::nearest, 0};
}

// Nearest of `levels` (ascending, >= 0) by distance, ties to the even index.
float nearest_level(const std::vector<double>& levels, double x) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < levels.size(); ++i) {
    const double closer = std::abs(levels[i] - x) - std::abs(levels[best] - x);
    if (closer < 0 || (closer == 0 && i % 2 == 0)) best = i;
  }
  return static_cast<float>(levels[best]);
}

// All finite values >= 0 of a format with these exponent and mantissa bits.
std::vector<double> small_float_levels(int bias, int mantissa, int codes) {
  std::vector<double> levels;
  for (int code = 0; code < codes; ++code) {
    const int exponent = code >> mantissa, fraction = code & ((1 << mantissa) - 1);
    const double significand = fraction + (exponent == 0 ? 0 : 1 << mantissa);
    levels.push_back(std::ldexp(significand, std::max(exponent, 1) - bias - mantissa));
  }
  return levels;
}

TEST(CodecValues, Bf16IsTheNearest) {
  std::mt19937_64 random(1);
  std::vector<float> x;
  for (int i = 0; i < 100'000; ++i) x.push_back(samples::finite_bits(random));
  for (int i = 0; i < 1000; ++i)
    x.push_back(std::bit_cast<float>(0x3f80'8000u + 0x10000u * static_cast<std::uint32_t>(i)));
  const std::vector<float> y = through(nearest(CodecId::bf16), x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::uint32_t down = bits_of(x[i]) & 0xffff'0000u, up = down + 0x1'0000u;
    const double below = std::bit_cast<float>(down), above = std::bit_cast<float>(up);
    const double to_below = std::abs(x[i] - below), to_above = std::abs(above - x[i]);
    const bool even_below = (down >> 16 & 1u) == 0;
    const bool take_below = to_below < to_above || (to_below == to_above && even_below);
    const float want =
        take_below || !std::isfinite(above) ? static_cast<float>(below) : static_cast<float>(above);
    ASSERT_EQ(bits_of(y[i]), bits_of(want)) << x[i];
  }
}

TEST(CodecValues, Fp16IsTheNearest) {
  const std::vector<double> levels = small_float_levels(15, 10, 0x7c00);
  std::mt19937_64 random(2);
  std::vector<float> x;
  for (int i = 0; i < 1500; ++i)
    x.push_back(std::ldexp(samples::gaussian(random, 1.f), static_cast<int>(random() % 44) - 28));
  for (std::size_t i = 0; i + 1 < 0x7c00; i += 37)
    x.push_back(static_cast<float>((levels[i] + levels[i + 1]) / 2));
  const std::vector<float> y = through(nearest(CodecId::fp16), x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(y[i], std::copysign(nearest_level(levels, std::abs(x[i])), x[i])) << x[i];
  }
}

TEST(CodecValues, Fp16DecodesEveryCode) {
  const std::vector<double> levels = small_float_levels(15, 10, 0x7c00);
  std::vector<std::byte> bytes(2 * 0x10000);
  for (std::size_t code = 0; code < 0x10000; ++code) {
    bytes[2 * code] = static_cast<std::byte>(code);
    bytes[2 * code + 1] = static_cast<std::byte>(code >> 8);
  }
  std::vector<float> y(0x10000);
  decode(CodecId::fp16, bytes, y);
  for (std::size_t code = 0; code < 0x10000; ++code) {
    const std::size_t low = code & 0x7fff;
    if (low < 0x7c00) {
      const auto want = static_cast<float>(levels[low]);
      ASSERT_EQ(bits_of(y[code]), bits_of(code == low ? want : -want)) << code;
    } else {
      ASSERT_EQ(std::isnan(y[code]), low > 0x7c00) << code;
    }
  }
}

// The block's first element fixes the scale at 2^-7 * amax; the rest are compared with all codes.
TEST(CodecValues, Fp8IsTheNearest) {
  const std::vector<double> levels = small_float_levels(7, 3, 0x7f);
  ASSERT_EQ(levels.back(), 448.0);
  for (const float amax : {128.f, 255.9f}) {
    std::mt19937_64 random(3);
    std::vector<float> x(20 * kCodecBlock);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double middle = (levels[i % 0x77] + levels[i % 0x77 + 1]) / 2;
      x[i] = i % 3 == 0 ? static_cast<float>(middle)
                        : std::ldexp(std::fmod(samples::gaussian(random, 60.f), amax),
                                     -static_cast<int>(random() % 18));
      if (i % kCodecBlock == 0 || std::abs(x[i]) > amax) x[i] = amax;
    }
    const std::vector<float> y = through(nearest(CodecId::fp8), x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float want = nearest_level(levels, std::abs(x[i]));
      ASSERT_EQ(bits_of(y[i]), bits_of(std::copysign(want, x[i]))) << x[i];
    }
  }
}

TEST(CodecValues, Fp4IsTheNearestByLogarithm) {
  std::mt19937_64 random(4);
  for (int exponent = -118; exponent <= 127; exponent += 5) {
    const double scale = std::ldexp(1.0, exponent);
    std::vector<float> x(kCodecBlock);
    for (float& value : x) {
      value = static_cast<float>(scale *
                                 std::exp2(-9.0 * static_cast<double>(random() % 10'000) / 1e4));
      if (random() % 2 == 0) value = -value;
    }
    x[0] = static_cast<float>(scale * 1.9);
    const std::vector<float> y = through(nearest(CodecId::fp4), x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double power = std::floor(std::log2(std::abs(double{x[i]}) / scale) + 0.5);
      const double level = power < -6 ? 0.0 : std::exp2(std::min(power, 0.0));
      ASSERT_EQ(y[i], static_cast<float>(std::copysign(level * scale, double{x[i]})))
          << x[i] / scale;
    }
  }
}

TEST(CodecValues, Fp4RoundsAtTheSquareRootOfTwo) {
  for (int k = 0; k <= 6; ++k) {
    const float below = std::ldexp(0x1.6a09e6p0f, -k - 1),
                above = std::ldexp(0x1.6a09e8p0f, -k - 1);
    const std::vector<float> y =
        through(nearest(CodecId::fp4), {1.f, below, above, -below, -above});
    const float low = k == 6 ? 0.f : std::ldexp(1.f, -k - 1), high = std::ldexp(1.f, -k);
    EXPECT_EQ(y, (std::vector<float>{1.f, low, high, -low, -high})) << k;
  }
}

struct GridCase {
  CodecId id;
  std::size_t block;
  double largest;
  bool minmax;
};
constexpr GridCase kGrids[] = {{CodecId::int8, 256, 127, false},
                               {CodecId::int8_minmax, 256, 127, true},
                               {CodecId::int4, 64, 7, false},
                               {CodecId::int4_minmax, 64, 7, true}};

TEST(CodecValues, IntegersAreOffByHalfAStepAtMost) {
  for (const GridCase& grid : kGrids) {
    for (const std::uint64_t kind : {0, 1, 2, 6, 8, 11}) {
      const std::vector<float> x = mixture(16 * kCodecBlock, 5, kind, true);
      const std::vector<float> y = through(nearest(grid.id), x);
      for (std::size_t at = 0; at < x.size(); at += grid.block) {
        const auto first = x.begin() + static_cast<std::ptrdiff_t>(at);
        const auto [low, high] =
            std::minmax_element(first, first + static_cast<std::ptrdiff_t>(grid.block));
        const double amax = std::max(std::abs(double{*low}), std::abs(double{*high}));
        const double half = grid.minmax ? (double{*high} - double{*low}) / 2 : amax;
        const double allowed =
            half / grid.largest * 0.5001 + amax * 0x1p-23 + amax * 0x1p-17 * (amax > 0x1.ffffp127);
        for (std::size_t i = at; i < at + grid.block; ++i) {
          ASSERT_LE(std::abs(double{x[i]} - double{y[i]}), allowed)
              << codec_name(grid.id) << " kind " << kind << " value " << x[i];
        }
      }
    }
  }
}

TEST(CodecValues, TwoBitKnowsFourLevels) {
  const std::vector<float> flat{-2.f, 2.f, 2.f, -2.f};  // amax is below 1.87 means
  EXPECT_EQ(through(nearest(CodecId::two_bit), flat), flat);
  const std::vector<float> x = mixture(kCodecBlock, 6, 0, true);
  double sum = 0, error = 0, power = 0;
  for (const float value : x) sum += std::abs(value);
  const double outer = 1.8719 * sum / static_cast<double>(x.size());
  const std::vector<float> y = through(nearest(CodecId::two_bit), x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double level = std::abs(x[i]) < outer * 2 / 3 ? outer / 3 : outer;
    ASSERT_NEAR(std::abs(y[i]), level, 1e-4) << x[i];
    ASSERT_EQ(std::signbit(y[i]), std::signbit(x[i]));
    error += (x[i] - y[i]) * (x[i] - y[i]);
    power += x[i] * x[i];
  }
  EXPECT_LT(error / power, 0.14);  // a Gaussian's least for four equal steps is 0.1188
}

TEST(CodecValues, NonFiniteValuesStayWhereTheyAreAndAreCounted) {
  for (const CodecId id : samples::all_codecs()) {
    for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic}) {
      std::vector<float> x = mixture(2 * kCodecBlock + 40, 7, 0, true);
      const std::vector<float> clean = through({id, rounding, 9}, x);
      const std::vector<std::size_t> bad{3, kCodecBlock + 70, 2 * kCodecBlock + 39};
      x[bad[0]] = kNan, x[bad[1]] = kInf, x[bad[2]] = -kInf;
      // Without them the scales are others only if one of them was an extreme; make sure it was
      // not.
      for (const std::size_t i : bad) ASSERT_LT(std::abs(clean[i]), 2.5f);
      EncodeReport report;
      const std::vector<float> y = through({id, rounding, 9}, x, &report);
      EXPECT_EQ(report, (EncodeReport{3, 0})) << codec_name(id);
      const bool has_infinity = id <= CodecId::fp16;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const bool is_bad = !std::isfinite(x[i]);
        if (id == CodecId::two_bit) {
          ASSERT_TRUE(std::isnan(y[i])) << "every block here holds one";
        } else if (is_bad && has_infinity && !std::isnan(x[i])) {
          ASSERT_EQ(y[i], x[i]);
        } else if (is_bad) {
          ASSERT_EQ(bits_of(y[i]), 0x7fc0'0000u) << codec_name(id);
        } else {
          ASSERT_EQ(y[i], clean[i]) << codec_name(id) << " element " << i;
        }
      }
    }
  }
}

TEST(CodecValues, BlocksOfNothingButNanAreNan) {
  for (const CodecId id : samples::all_codecs()) {
    EncodeReport report;
    for (const float value : through(nearest(id), std::vector<float>(300, kNan), &report)) {
      ASSERT_TRUE(std::isnan(value)) << codec_name(id);
    }
    EXPECT_EQ(report.non_finite, 300u);
  }
}

TEST(CodecValues, ZeroStaysZero) {
  for (const CodecId id : samples::all_codecs()) {
    for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic}) {
      const bool signed_zero = id <= CodecId::fp8;
      const bool has_zero = id != CodecId::two_bit;
      for (const float other : {0.f, 1.f}) {  // alone, and beside something
        std::vector<float> x(kCodecBlock + 5, -0.f);
        x[9] = other;
        const std::vector<float> y = through({id, rounding, 1}, x);
        const std::uint32_t want = signed_zero ? 0x8000'0000u : 0u;
        if (has_zero) {
          ASSERT_EQ(bits_of(y[8]), want) << codec_name(id);
        } else if (other == 0.f) {
          ASSERT_EQ(y[8], 0.f) << codec_name(id);
        }
      }
    }
  }
}

TEST(CodecValues, TheLargestFloatsStayFinite) {
  for (const CodecId id : samples::all_codecs()) {
    for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic}) {
      for (const float other : {kMax, -kMax, 0.f, 0x1.ffffp127f}) {
        std::vector<float> x(kCodecBlock + 9, kMax);
        for (std::size_t i = 0; i < x.size(); i += 2) x[i] = other;
        EncodeReport report;
        const std::vector<float> y = through({id, rounding, 2}, x, &report);
        EXPECT_EQ(report.non_finite, 0u);
        EXPECT_EQ(report.saturated != 0, id == CodecId::bf16 || id == CodecId::fp16);
        for (const float value : y) ASSERT_TRUE(std::isfinite(value)) << codec_name(id);
        const float least = id == CodecId::fp16  ? 65504.f
                            : id == CodecId::fp8 ? 0x1.ep127f
                            : id == CodecId::fp4 ? 0x1p127f
                                                 : 0x1.fcp127f;
        if (rounding == Rounding::nearest && id != CodecId::two_bit) {
          ASSERT_GE(y[1], least) << codec_name(id);
        }
      }
    }
  }
}

TEST(CodecValues, DenormalBlocks) {
  for (const CodecId id : samples::all_codecs()) {
    std::vector<float> x(kCodecBlock, kLeastDenormal);
    x[3] = -0x1p-127f;
    const std::vector<float> y = through(nearest(id), x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      // Below kTiny = 2^-118 there is no scale of its own: off by at most a step of that.
      const double allowed = id <= CodecId::bf16 ? 0x1p-134 : 0x1p-117;
      ASSERT_LE(std::abs(double{y[i]} - double{x[i]}), allowed) << codec_name(id);
    }
  }
}

TEST(CodecValues, Fp16SaturatesAndSaysSo) {
  EncodeReport report;
  const std::vector<float> x{65504.f, 65519.f, 65520.f, -1e30f, 1.f};
  EXPECT_EQ(through(nearest(CodecId::fp16), x, &report),
            (std::vector<float>{65504.f, 65504.f, 65504.f, -65504.f, 1.f}));
  EXPECT_EQ(report, (EncodeReport{0, 2}));
}

// The calling thread's floating-point environment does not matter.
TEST(CodecValues, RoundingModeAndFlushToZeroDoNotMatter) {
  const std::vector<float> x = mixture(4 * kCodecBlock + 50, 8, 0);
  for (const CodecId id : samples::all_codecs()) {
    for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic}) {
      const std::vector<float> want = through({id, rounding, 3}, x);
      const int mode = std::fegetround();
      std::fesetround(FE_UPWARD);
#if defined(__x86_64__)
      const unsigned before = _mm_getcsr();
      _mm_setcsr(before | 0x8040u);  // flush to zero, denormals are zero
#endif
      const std::vector<float> got = through({id, rounding, 3}, x);
#if defined(__x86_64__)
      EXPECT_EQ(_mm_getcsr() & 0x8040u, 0x8040u) << "the caller's setting is put back";
      _mm_setcsr(before);
#endif
      std::fesetround(mode);
      EXPECT_EQ(std::memcmp(got.data(), want.data(), 4 * got.size()), 0) << codec_name(id);
    }
  }
}

TEST(CodecNames, AreReadBack) {
  for (const CodecId id : samples::all_codecs()) EXPECT_EQ(codec_named(codec_name(id)), id);
  EXPECT_FALSE(codec_named("int7").has_value());
}

TEST(CodecSizes, AreAsDocumented) {
  const std::size_t full[kCodecs] = {1024, 512, 512, 260, 260, 264, 144, 160, 132, 68};
  const std::size_t short3[kCodecs] = {12, 6, 6, 7, 7, 11, 7, 11, 7, 7};
  for (const CodecId id : samples::all_codecs()) {
    const auto i = static_cast<std::size_t>(id);
    EXPECT_EQ(encoded_bytes(id, 0), 0u);
    EXPECT_EQ(encoded_bytes(id, kCodecBlock), full[i]);
    EXPECT_EQ(encoded_bytes(id, 1000 * kCodecBlock), 1000 * full[i]);
    EXPECT_EQ(encoded_bytes(id, 2 * kCodecBlock + 3), 2 * full[i] + short3[i]);
  }
}

}  // namespace
}  // namespace reef
