#include "atoll/kernels/kernels.h"

#include "atoll/base/result.h"

// Plain loops over pointers that do not overlap: GCC turns them into vector code at -O3. A vector
// addition rounds each lane as the scalar one does, so the width of the machine changes no bit.

namespace reef {

void add(std::span<float> acc, std::span<const float> x) {
  check(acc.size() == x.size(), "add: the spans differ in length");
  float* __restrict to = acc.data();
  const float* __restrict from = x.data();
  const std::size_t count = acc.size();
  for (std::size_t i = 0; i < count; ++i) {
    to[i] = to[i] + from[i];
  }
}

void add(std::span<float> out, std::span<const float> a, std::span<const float> b) {
  check(out.size() == a.size() && out.size() == b.size(), "add: the spans differ in length");
  float* __restrict to = out.data();
  const float* __restrict left = a.data();
  const float* __restrict right = b.data();
  const std::size_t count = out.size();
  for (std::size_t i = 0; i < count; ++i) {
    to[i] = left[i] + right[i];
  }
}

void nesterov_step(std::span<float> theta_out, std::span<float> momentum_out,
                   std::span<const float> theta, std::span<const float> momentum,
                   std::span<const float> sum, float inverse_weight, float eta, float mu) {
  const std::size_t count = theta_out.size();
  check(momentum_out.size() == count && theta.size() == count && momentum.size() == count &&
            sum.size() == count,
        "nesterov_step: the spans differ in length");
  float* __restrict new_theta = theta_out.data();
  float* __restrict new_momentum = momentum_out.data();
  const float* __restrict old_theta = theta.data();
  const float* __restrict old_momentum = momentum.data();
  const float* __restrict total = sum.data();
  for (std::size_t i = 0; i < count; ++i) {
    const float delta = total[i] * inverse_weight;
    const float velocity = mu * old_momentum[i] + delta;
    new_momentum[i] = velocity;
    new_theta[i] = old_theta[i] - eta * (delta + mu * velocity);
  }
}

void descend(std::span<float> theta_out, std::span<const float> theta, std::span<const float> sum,
             float inverse_weight, float alpha) {
  const std::size_t count = theta_out.size();
  check(theta.size() == count && sum.size() == count, "descend: the spans differ in length");
  float* new_theta = theta_out.data();
  const float* old_theta = theta.data();
  const float* total = sum.data();
  // theta_out is theta, or apart: no element depends on another.
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    const float mean = total[i] * inverse_weight;
    new_theta[i] = old_theta[i] - alpha * mean;
  }
}

bool scatter_add(std::span<float> acc, std::span<const std::int64_t> positions,
                 std::span<const float> values, float factor) {
  check(positions.size() == values.size(), "scatter_add: the spans differ in length");
  for (const std::int64_t position : positions) {
    if (position < 0 || static_cast<std::uint64_t>(position) >= acc.size()) return false;
  }
  for (std::size_t j = 0; j < positions.size(); ++j) {
    float& at = acc[static_cast<std::size_t>(positions[j])];
    const float added = factor * values[j];
    at = at + added;
  }
  return true;
}

}  // namespace reef
