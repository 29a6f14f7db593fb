// Arithmetic that must give the same bits on every machine: fp32, fixed order, no contraction
// (the build passes -ffp-contract=off). Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace reef {

// acc[i] = acc[i] + x[i]
void add(std::span<float> acc, std::span<const float> x);
// out[i] = a[i] + b[i]
void add(std::span<float> out, std::span<const float> a, std::span<const float> b);

// DiLoCo's outer step (arXiv 2311.08105), out of place, all spans of one length:
//   delta = sum[i] * inverse_weight;  momentum_out = mu*momentum + delta;
//   theta_out = theta - eta*(delta + mu*momentum_out)
void nesterov_step(std::span<float> theta_out, std::span<float> momentum_out,
                   std::span<const float> theta, std::span<const float> momentum,
                   std::span<const float> sum, float inverse_weight, float eta, float mu);

// SparseLoCo's outer step (arXiv 2508.15706), all spans of one length; theta_out may be theta:
//   theta_out = theta - alpha*(sum[i] * inverse_weight)
void descend(std::span<float> theta_out, std::span<const float> theta, std::span<const float> sum,
             float inverse_weight, float alpha);

// acc[positions[j]] = acc[positions[j]] + factor*values[j], for j = 0, 1, ... in turn. Returns false,
// and adds nothing, when a position is outside acc.
[[nodiscard]] bool scatter_add(std::span<float> acc, std::span<const std::int64_t> positions,
                               std::span<const float> values, float factor);

}  // namespace reef
