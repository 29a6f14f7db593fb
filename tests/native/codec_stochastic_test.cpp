// Stochastic rounding: the mean of many encodings is the value, and nothing but the seed and the
// element's index decides.
#include <gtest/gtest.h>

#include <set>

#include "codec_samples.h"

namespace reef {
namespace {

using samples::through;

Codec stochastic(CodecId id, std::uint64_t seed) {
  return {id, Rounding::stochastic, seed};
}

class Stochastic : public testing::TestWithParam<CodecId> {};

// 4,000 seeds: the mean's standard error is at most half a step / sqrt(4000); 6 of them are
// allowed.
TEST_P(Stochastic, TheMeanIsTheValue) {
  constexpr int kSeeds = 4000;
  std::mt19937_64 random(1);
  std::vector<float> x(kCodecBlock);
  for (float& value : x) value = samples::gaussian(random, 0.1f);
  x[0] = 0.7f;
  x[1] = 1e-5f;
  std::vector<double> sum(x.size()), squares(x.size());
  for (int seed = 0; seed < kSeeds; ++seed) {
    const std::vector<float> y =
        through(stochastic(GetParam(), static_cast<std::uint64_t>(seed)), x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      sum[i] += y[i];
      squares[i] += double{y[i]} * y[i];
    }
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double mean = sum[i] / kSeeds;
    const double variance = std::max(0.0, squares[i] / kSeeds - mean * mean);
    // A step that is hardly ever taken has too few samples for its variance: hence the second term.
    const double allowed = 6 * std::sqrt(variance / kSeeds) + 0.7 * 0.002 + std::abs(x[i]) * 1e-6;
    EXPECT_NEAR(mean, x[i], allowed) << "element " << i;
  }
}

TEST_P(Stochastic, ErrorsOfElementsAndSeedsAreIndependent) {
  const std::vector<float> x(64 * kCodecBlock, 0.34567f);
  std::vector<float> with_scale = x;
  for (std::size_t i = 0; i < x.size(); i += 64) with_scale[i] = 1.f, with_scale[i + 1] = -1.f;
  const std::vector<float> a = through(stochastic(GetParam(), 1), with_scale);
  const std::vector<float> b = through(stochastic(GetParam(), 2), with_scale);
  const auto correlation = [&](const std::vector<float>& u, const std::vector<float>& v,
                               std::size_t lag) {
    double product = 0, first = 0, second = 0;
    for (std::size_t i = 0; i + lag < u.size(); ++i) {
      if (i % 64 < 2 || (i + lag) % 64 < 2) continue;
      const double p = u[i] - x[i], q = v[i + lag] - x[i];
      product += p * q, first += p * p, second += q * q;
    }
    return product / std::sqrt(first * second);
  };
  for (const std::size_t lag : {1u, 2u, 16u, 255u, 256u}) {
    EXPECT_LT(std::abs(correlation(a, a, lag)), 0.05) << "lag " << lag;
  }
  EXPECT_LT(std::abs(correlation(a, b, 0)), 0.05);
}

TEST_P(Stochastic, TheSameSeedGivesTheSameBytes) {
  const std::vector<float> x = samples::mixture(5 * kCodecBlock, 4, 0, true);
  const auto bytes_of = [&](std::uint64_t seed, std::uint64_t first) {
    std::vector<std::byte> bytes(encoded_bytes(GetParam(), x.size()));
    (void)encode(stochastic(GetParam(), seed), x, bytes, first);
    return bytes;
  };
  EXPECT_EQ(bytes_of(1, 0), bytes_of(1, 0));
  EXPECT_NE(bytes_of(1, 0), bytes_of(2, 0));
  EXPECT_NE(bytes_of(1, 0), bytes_of(1, kCodecBlock));
}

std::vector<CodecId> lossy() {
  std::vector<CodecId> ids = samples::all_codecs();
  ids.erase(ids.begin());
  return ids;
}
std::string name_of(const testing::TestParamInfo<CodecId>& info) {
  std::string name = codec_name(info.param);
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, Stochastic, testing::ValuesIn(lossy()), name_of);

}  // namespace
}  // namespace reef
