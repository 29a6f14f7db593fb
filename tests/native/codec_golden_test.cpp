// Encodings computed by a NumPy script from the description of the formats, byte for byte.
#include <gtest/gtest.h>

#include <string>

#include "codec_golden.h"
#include "codec_samples.h"

namespace reef {
namespace {

std::string hex_of(const std::vector<std::byte>& bytes) {
  static const char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const std::byte b : bytes) {
    hex += kDigits[std::to_integer<unsigned>(b) >> 4];
    hex += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return hex;
}

TEST(CodecGolden, EncodingsAreThoseOfTheScript) {
  std::vector<float> x;
  for (const std::uint32_t bits : golden::kInput) x.push_back(std::bit_cast<float>(bits));
  for (const Isa isa : kIsas) {
    if (!isa_available(isa)) continue;
    for (const golden::Vector& vector : golden::kVectors) {
      std::vector<std::byte> bytes(encoded_bytes(vector.id, x.size()));
      const Codec codec{vector.id, vector.rounding, golden::kSeed};
      const EncodeReport report =
          kernels_for(vector.id, isa).encode(x.data(), x.size(), bytes.data(), codec, 0);
      EXPECT_EQ(hex_of(bytes), vector.hex)
          << codec_name(vector.id) << (codec.rounding == Rounding::nearest ? "" : ", stochastic")
          << ", " << isa_name(isa);
      EXPECT_EQ(report.non_finite, 3u);
    }
  }
}

// A few numbers by hand, so that the formats can be followed without running anything.
TEST(CodecGolden, ByHand) {
  const auto encoded = [](CodecId id, const std::vector<float>& x) {
    std::vector<std::byte> bytes(encoded_bytes(id, x.size()));
    (void)encode({id, Rounding::nearest, 0}, x, bytes);
    return hex_of(bytes);
  };
  const std::vector<float> x{1.f, -0.5f, 0.f, 127.f};
  EXPECT_EQ(encoded(CodecId::bf16, x), "803f00bf0000fe42");
  EXPECT_EQ(encoded(CodecId::fp16, x), "003c00b80000f057");
  EXPECT_EQ(encoded(CodecId::int8, x),
            "0000803f"
            "0100007f");  // -0.5 ties to 0
  EXPECT_EQ(encoded(CodecId::fp4, x),
            "00008042"
            "01000007");  // s = 64; 127 > 64; 0.5 < 0.707
  EXPECT_EQ(encoded(CodecId::fp8, x),
            "0000003f"
            "40b80078");  // s = 1/2; 127 / s = 254 -> 256
  // Codes come of x * (127 / amax); x * (1 / scale) would give 0 and 1.
  EXPECT_EQ(encoded(CodecId::int8, {2.75f, 0x1.62c58cp-7f, 0x1.0a1428p-5f}),
            "c662b13c"
            "7f0102");
  const std::vector<float> range{10.f, 11.f, 12.f, 24.f};  // middle 17, scale 7/127 or 1
  EXPECT_EQ(encoded(CodecId::int4_minmax, range),
            "0000803f"
            "00008841"
            "090a0b07");
}

}  // namespace
}  // namespace reef
