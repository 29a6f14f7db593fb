// Kernels against references that round after every step and cannot be contracted or vectorised.

#include "atoll/kernels/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace reef {
namespace {

// All of float's kinds: ordinary, tiny, subnormal, infinite; no NaN, whose payload is nobody's
// promise.
std::vector<float> numbers(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> out(count);
  for (float& number : out) {
    do {
      number = random() % 4 == 0 ? std::bit_cast<float>(static_cast<std::uint32_t>(random()))
                                 : static_cast<float>(static_cast<double>(random()) / 1e18);
    } while (number != number);
  }
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != a[i] && b[i] != b[i]) continue;  // inf - inf
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  }
  return a.size() == b.size();
}

const std::size_t kCounts[] = {0, 1, 3, 4, 5, 15, 16, 17, 63, 1'000, 4'099};

TEST(Kernels, AddInPlaceRoundsLikeTheScalarLoop) {
  for (std::size_t count : kCounts) {
    std::vector<float> acc = numbers(count, 1);
    const std::vector<float> x = numbers(count, 2);
    std::vector<float> expected(count);
    for (std::size_t i = 0; i < count; ++i) {
      volatile float sum = acc[i];
      sum = sum + x[i];
      expected[i] = sum;
    }
    add(acc, x);
    EXPECT_TRUE(same_bits(acc, expected)) << count;
  }
}

TEST(Kernels, AddOutOfPlaceRoundsLikeTheScalarLoop) {
  for (std::size_t count : kCounts) {
    const std::vector<float> a = numbers(count, 3);
    const std::vector<float> b = numbers(count, 4);
    std::vector<float> out(count, 9.0F);
    std::vector<float> expected(count);
    for (std::size_t i = 0; i < count; ++i) {
      volatile float sum = a[i];
      sum = sum + b[i];
      expected[i] = sum;
    }
    add(out, a, b);
    EXPECT_TRUE(same_bits(out, expected)) << count;
  }
}

TEST(Kernels, NesterovRoundsAfterEveryStep) {
  for (std::size_t count : kCounts) {
    const std::vector<float> theta = numbers(count, 5);
    const std::vector<float> momentum = numbers(count, 6);
    const std::vector<float> sum = numbers(count, 7);
    const float inverse_weight = 1.0F / 3.0F;
    const float eta = 0.7F;
    const float mu = 0.9F;
    std::vector<float> theta_out(count);
    std::vector<float> momentum_out(count);
    nesterov_step(theta_out, momentum_out, theta, momentum, sum, inverse_weight, eta, mu);
    std::vector<float> expected_theta(count);
    std::vector<float> expected_momentum(count);
    for (std::size_t i = 0; i < count; ++i) {
      volatile float delta = sum[i] * inverse_weight;
      volatile float kept = mu * momentum[i];
      volatile float velocity = kept + delta;
      volatile float ahead = mu * velocity;
      volatile float step = delta + ahead;
      volatile float scaled = eta * step;
      volatile float moved = theta[i] - scaled;
      expected_momentum[i] = velocity;
      expected_theta[i] = moved;
    }
    EXPECT_TRUE(same_bits(theta_out, expected_theta)) << count;
    EXPECT_TRUE(same_bits(momentum_out, expected_momentum)) << count;
  }
}

// The textbook's two steps, by hand: theta 1, momentum 0, delta 1, eta 0.5, mu 0.5.
TEST(Kernels, NesterovFollowsTheFormula) {
  const std::vector<float> theta{1.0F};
  const std::vector<float> momentum{0.0F};
  const std::vector<float> sum{4.0F};
  std::vector<float> theta_out(1);
  std::vector<float> momentum_out(1);
  nesterov_step(theta_out, momentum_out, theta, momentum, sum, 0.25F, 0.5F, 0.5F);
  EXPECT_EQ(momentum_out[0], 1.0F);
  EXPECT_EQ(theta_out[0], 1.0F - 0.5F * 1.5F);
  std::vector<float> theta_after(1);
  std::vector<float> momentum_after(1);
  nesterov_step(theta_after, momentum_after, theta_out, momentum_out, sum, 0.25F, 0.5F, 0.5F);
  EXPECT_EQ(momentum_after[0], 1.5F);
  EXPECT_EQ(theta_after[0], 0.25F - 0.5F * 1.75F);
}

TEST(Kernels, DescentRoundsAfterEveryStepInPlaceToo) {
  for (std::size_t count : kCounts) {
    std::vector<float> theta = numbers(count, 8);
    const std::vector<float> sum = numbers(count, 9);
    std::vector<float> expected(count);
    for (std::size_t i = 0; i < count; ++i) {
      volatile float mean = sum[i] * (1.0F / 3.0F);
      volatile float scaled = 0.9F * mean;
      volatile float moved = theta[i] - scaled;
      expected[i] = moved;
    }
    std::vector<float> out(count);
    descend(out, theta, sum, 1.0F / 3.0F, 0.9F);
    EXPECT_TRUE(same_bits(out, expected)) << count;
    descend(theta, theta, sum, 1.0F / 3.0F, 0.9F);
    EXPECT_TRUE(same_bits(theta, expected)) << count;
  }
}

TEST(Kernels, ScatterAddsInTurnAndNothingOutside) {
  std::vector<float> acc = numbers(50, 10);
  const std::vector<float> before = acc;
  const std::vector<float> values = numbers(4, 11);
  const std::vector<std::int64_t> positions{49, 0, 7, 7};
  std::vector<float> expected = acc;
  for (std::size_t j = 0; j < positions.size(); ++j) {
    volatile float scaled = 0.7F * values[j];
    volatile float sum = expected[static_cast<std::size_t>(positions[j])];
    sum = sum + scaled;
    expected[static_cast<std::size_t>(positions[j])] = sum;
  }
  EXPECT_TRUE(scatter_add(acc, positions, values, 0.7F));
  EXPECT_TRUE(same_bits(acc, expected));
  for (const std::int64_t outside : {std::int64_t{50}, std::int64_t{-1}, INT64_MIN, INT64_MAX}) {
    acc = before;
    EXPECT_FALSE(scatter_add(acc, std::vector<std::int64_t>{0, 1, 2, outside}, values, 0.7F));
    EXPECT_TRUE(same_bits(acc, before));
  }
}

TEST(KernelsDeathTest, DifferentLengthsAreABug) {
  std::vector<float> three(3);
  std::vector<float> four(4);
  EXPECT_DEATH(add(three, four), "length");
}

}  // namespace
}  // namespace reef
